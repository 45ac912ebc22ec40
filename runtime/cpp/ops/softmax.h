#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace eptx::ops {

// Scores become weights that sum to 1.
inline void Softmax(float* p, size_t n) noexcept {
  const float top = *std::max_element(p, p + n);
  float sum = 0;
  for (size_t i = 0; i < n; ++i) sum += p[i] = std::exp(p[i] - top);
  for (size_t i = 0; i < n; ++i) p[i] /= sum;
}

}  // namespace eptx::ops
