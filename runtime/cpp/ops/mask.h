// Which positions a mean is over.
#pragma once

#include "ops/ort.h"

namespace eptx::ops {

// How much a position counts, of a mask of any type that models have.
inline float Count(const Tensor& mask, size_t at) {
  switch (mask.type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return static_cast<const float*>(mask.data)[at];
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return static_cast<float>(static_cast<const int64_t*>(mask.data)[at]);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return static_cast<float>(static_cast<const int32_t*>(mask.data)[at]);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL: return static_cast<const bool*>(mask.data)[at] ? 1.0f : 0.0f;
    default: Refuse("mask has element type %d", static_cast<int>(mask.type));
  }
}

}  // namespace eptx::ops
