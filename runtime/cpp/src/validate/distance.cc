#include "validate/distance.h"

#include <algorithm>
#include <cmath>

namespace eptx::core {
namespace {

constexpr int64_t kFew = 64;  // fewer numbers than this measure their own noise floor badly

double Divide(double error, double floor) {
  if (error == 0.0) return 0.0;
  // an infinite floor would hide every error
  return 0.0 < floor && std::isfinite(floor) && std::isfinite(error) ? error / floor : kWorst;
}

}  // namespace

double Rounding(const Manifest& manifest) { return manifest.precision == "fp16" ? 0x1p-11 : 0x1p-24; }

double Ratio(const Spread& error, const Spread& noise, const Spread& scale, double rounding, double typical) {
  const double eps = scale.count < kFew ? std::max(rounding, typical) : rounding;
  const double everywhere = Divide(error.rms(), std::max(noise.rms(), eps * scale.rms()));
  const double anywhere = Divide(error.largest, 2.0 * std::max(noise.largest, eps * scale.largest));
  return std::min(std::max(everywhere, anywhere), kWorst);
}

Spread SpreadOf(const Spreads& spreads, const Subject& subject) {
  const auto found = spreads.find(subject);
  return found == spreads.end() ? Spread{} : found->second;
}

}  // namespace eptx::core
