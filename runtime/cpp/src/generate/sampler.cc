#include "generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "readers/error.h"

namespace eptx::core {
namespace {

constexpr uint64_t kStep = 0x9E3779B97F4A7C15;
constexpr size_t kFirstHead = 64;  // tokens to sort first for top_p; four times as many when they are not enough

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

Random::Random(uint64_t seed)
    : state_(Mix(seed + kStep)) {}  // mixed, so that neighbouring seeds give unrelated streams

double Random::Next() {
  state_ += kStep;
  return static_cast<double>(Mix(state_) >> 11) * 0x1p-53;
}

Sampler::Sampler(const Sampling& sampling, size_t row) : sampling_(sampling), random_(sampling.seed + row) {}

size_t Sampler::Next(const float* logits, size_t count) {
  const float* const best = std::max_element(logits, logits + count);
  const bool any_nan = std::any_of(logits, logits + count, [](float logit) { return std::isnan(logit); });
  if (any_nan || !std::isfinite(*best)) throw BundleError("the model's logits are not numbers");
  if (sampling_.temperature == 0 || sampling_.top_k == 1) return static_cast<size_t>(best - logits);
  return Draw(logits, count, *best);
}

size_t Sampler::Draw(const float* logits, size_t count, float largest) {
  weights_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    weights_[i] = std::exp((double{logits[i]} - double{largest}) / double{sampling_.temperature});
  }
  order_.resize(count);
  std::iota(order_.begin(), order_.end(), size_t{0});
  size_t kept = count;
  if (sampling_.top_k != 0 && sampling_.top_k < count) {
    kept = sampling_.top_k;
    Sort(0, kept);
  }
  if (sampling_.top_p < 1) kept = Nucleus(kept);
  double left = random_.Next() * Mass(kept);
  size_t token = order_[0];
  for (size_t i = 0; i < kept && left >= 0; ++i) {
    if (weights_[order_[i]] == 0) continue;
    token = order_[i];
    left -= weights_[token];
  }
  return token;
}

size_t Sampler::Nucleus(size_t among) {
  const double wanted = double{sampling_.top_p} * Mass(among);
  size_t sorted = among < order_.size() ? among : 0;
  double mass = 0;
  for (size_t i = 0; i < among; ++i) {
    if (i == sorted) {
      sorted = std::min(among, std::max(kFirstHead, 4 * sorted));
      Sort(i, sorted);
    }
    mass += weights_[order_[i]];
    if (mass >= wanted) return i + 1;
  }
  return among;
}

void Sampler::Sort(size_t from, size_t to) {
  const auto begin = order_.begin();
  std::partial_sort(
      begin + static_cast<std::ptrdiff_t>(from), begin + static_cast<std::ptrdiff_t>(to), order_.end(),
      [this](size_t a, size_t b) { return weights_[a] > weights_[b] || (weights_[a] == weights_[b] && a < b); });
}

double Sampler::Mass(size_t first) const {
  double mass = 0;
  for (size_t i = 0; i < first; ++i) mass += weights_[order_[i]];
  return mass;
}

}  // namespace eptx::core
