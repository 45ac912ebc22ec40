#include "validate/array.h"

#include <algorithm>
#include <cmath>

#include "readers/error.h"
#include "readers/half.h"
#include "readers/proof/places.h"

namespace eptx::core {
namespace {

constexpr char kWhat[] = "ONNX Runtime does not give an output";

template <typename T>
double Number(T value) {
  return static_cast<double>(value);
}

struct Half {
  uint16_t bits;
};

template <>
double Number<Half>(Half value) {
  return static_cast<double>(HalfToFloat(value.bits));
}

// Of every `width` numbers, those from `first` on.
template <typename T>
void Copy(const void* data, size_t width, size_t first, Array& array) {
  const T* const values = static_cast<const T*>(data);
  const auto kept = static_cast<size_t>(array.last());
  for (size_t at = 0; at < array.data.size(); ++at) {
    array.data[at] = Number(values[at / kept * width + first + at % kept]);
  }
}

ONNXTensorElementDataType TypeOf(const OrtValue* tensor) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  Check(Api().GetTensorTypeAndShape(tensor, &info), kWhat);
  const Owned<OrtTensorTypeAndShapeInfo> owner(info);
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  Check(Api().GetTensorElementType(info, &type), kWhat);
  return type;
}

}  // namespace

Array ReadArray(OrtValue* tensor, const Columns* columns) {
  Array array{ShapeOf(tensor), {}};
  const int64_t width = array.last();
  int64_t first = 0;
  if (columns != nullptr && !array.shape.empty()) {
    first = std::min(columns->first, width);
    array.shape.back() = std::max<int64_t>(std::min(columns->second, width) - first, 0);
  }
  const auto count = CountOf(array.shape);
  if (!count) throw LimitError("an output is too large");
  array.data.resize(*count);
  const void* const data = DataOf(tensor);
  const auto all = static_cast<size_t>(width), from = static_cast<size_t>(first);
  switch (TypeOf(tensor)) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      Copy<float>(data, all, from, array);
      return array;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      Copy<Half>(data, all, from, array);
      return array;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
      Copy<double>(data, all, from, array);
      return array;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      Copy<int64_t>(data, all, from, array);
      return array;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      Copy<int32_t>(data, all, from, array);
      return array;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      Copy<bool>(data, all, from, array);
      return array;
    default:
      throw BundleError("an output has numbers of a type that no bundle has");
  }
}

size_t LargestOf(const double* numbers, size_t count) {
  size_t best = 0;
  for (size_t i = 0; i < count; ++i) {
    if (std::isnan(numbers[i])) return i;
    if (numbers[i] > numbers[best]) best = i;
  }
  return best;
}

}  // namespace eptx::core
