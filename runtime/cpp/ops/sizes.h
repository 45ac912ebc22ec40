// Refusals, and arithmetic on the sizes of memory. An empty tensor may have dimensions of any size, so every product of
// dimensions is checked for overflow.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdio>

namespace eptx::ops {

// Why a node cannot be computed. Thrown inside the library only; the entry points turn it into an OrtStatus.
struct Refused {
  int code = 2;  // ORT_INVALID_ARGUMENT, an OrtErrorCode; this file is also built without ONNX Runtime
  char text[256] = {};
};

#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
[[noreturn]] inline void
Refuse(const char* format, ...) {
  Refused refused;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(refused.text, sizeof(refused.text), format, arguments);
  va_end(arguments);
  throw refused;
}

// Only these two functions multiply and add sizes of memory.
template <class... Sizes>
size_t Product(size_t first, Sizes... more) {
  size_t product = first;
  const bool zero = ((first == 0) || ... || (static_cast<size_t>(more) == 0));
  if (zero) return 0;
  if ((__builtin_mul_overflow(product, static_cast<size_t>(more), &product) || ...)) {
    Refuse("its tensors' sizes are out of range");
  }
  return product;
}

inline size_t Sum(size_t a, size_t b) {
  size_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) Refuse("its tensors' sizes are out of range");
  return sum;
}

}  // namespace eptx::ops
