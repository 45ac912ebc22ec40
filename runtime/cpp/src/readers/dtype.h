// Element types: their names in eptx.json, and their sizes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "eptx.h"

namespace eptx::core {

// The bytes of one element; 0 for a number that is not a dtype.
inline size_t DtypeSize(eptx_dtype dtype) {
  switch (dtype) {
    case EPTX_FLOAT64:
    case EPTX_INT64:
      return 8;
    case EPTX_FLOAT32:
    case EPTX_INT32:
      return 4;
    case EPTX_FLOAT16:
      return 2;
    case EPTX_BOOL:
      return 1;
  }
  return 0;
}

constexpr struct {
  const char* name;
  eptx_dtype dtype;
} kDtypes[] = {
    {"float16", EPTX_FLOAT16}, {"float32", EPTX_FLOAT32}, {"float64", EPTX_FLOAT64},
    {"int32", EPTX_INT32},     {"int64", EPTX_INT64},     {"bool", EPTX_BOOL},
};

inline std::string DtypeName(eptx_dtype dtype) {
  for (const auto& known : kDtypes) {
    if (known.dtype == dtype) return known.name;
  }
  return "of an unknown type";
}

inline bool IsInteger(eptx_dtype dtype) { return dtype == EPTX_INT32 || dtype == EPTX_INT64; }

}  // namespace eptx::core
