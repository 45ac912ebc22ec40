#include <cmath>
#include <limits>

#include "readers/proof/proof.h"

namespace eptx::core {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

void Spread::Add(double number) {
  ++count;
  squares += number * number;
  const double size = std::fabs(number);
  if (!std::isfinite(size)) {
    largest = kInfinity;
  } else if (size > largest) {
    largest = size;
  }
}

double Spread::rms() const {
  if (!std::isfinite(largest) || !std::isfinite(squares)) return kInfinity;
  return count == 0 ? 0.0 : std::sqrt(squares / static_cast<double>(count));
}

}  // namespace eptx::core
