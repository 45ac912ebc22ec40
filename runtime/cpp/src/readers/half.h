// Numbers of 16 bits.
#pragma once

#include <cstdint>
#include <cstring>

namespace eptx::core {

inline float HalfToFloat(uint16_t half) {
  uint32_t bits = static_cast<uint32_t>(half & 0x7FFF) << 13;
  const bool finite = (half & 0x7C00) != 0x7C00;
  if (!finite) bits |= 0x7F800000;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  if (finite) value *= 0x1p112f;  // the difference of the exponents' biases
  return (half & 0x8000) != 0 ? -value : value;
}

}  // namespace eptx::core
