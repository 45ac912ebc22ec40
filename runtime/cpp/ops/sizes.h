// Refusals, and the arithmetic of what sizes memory: a tensor without numbers may have dimensions of any size, so no
// product of dimensions is known to fit before it is computed.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdio>

namespace eptx::ops {

// Why a node cannot be computed. Thrown inside the library only; the entry points turn it into an OrtStatus.
struct Refused {
  int code = 2;  // an OrtErrorCode: ORT_INVALID_ARGUMENT. The arithmetic is built without ONNX Runtime too.
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

// What the size of memory is made of is multiplied and added by these two alone.
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
