// The values of a request's inputs.
#include <algorithm>
#include <cstring>

#include "readers/dtype.h"
#include "readers/error.h"
#include "readers/request/feeds.h"

namespace eptx::core {
namespace {

// Refuses values outside 0 .. end - 1. The error names the place of the first.
template <typename T>
void CheckRange(const std::string& name, const TensorView& tensor, std::optional<int64_t> end, const char* what) {
  const T* values = static_cast<const T*>(tensor.data);
  const size_t count = tensor.count();
  const auto wrong = [&](T value) { return value < 0 || (end && static_cast<int64_t>(value) >= *end); };
  bool any = false;
  for (size_t i = 0; i < count; ++i) any |= wrong(values[i]);  // no early exit: the compiler vectorizes it
  if (!any) return;
  const size_t first = static_cast<size_t>(std::find_if(values, values + count, wrong) - values);
  throw RequestError("input " + PlaceText(name, tensor, first) + " is " + std::to_string(values[first]) + "; " + what +
                     " are " + (end ? "0 to " + std::to_string(*end - 1) : "not negative"));
}

template <typename T>
void CheckMask(const std::string& name, const TensorView& tensor) {
  CheckRange<T>(name, tensor, 2, "mask values");
  const T* values = static_cast<const T*>(tensor.data);
  const auto rows = static_cast<size_t>(tensor.shape[0]);
  const size_t width = tensor.count() / rows;
  for (size_t row = 0; row < rows; ++row, values += width) {
    if (std::all_of(values, values + width, [](T value) { return value == 0; })) {
      throw RequestError("input " + name + " hides all of row " + std::to_string(row));
    }
  }
}

template <typename T>
void CheckIntegers(const std::string& name, const TensorView& tensor, const Limits& limits) {
  if (name == kInputIds) {
    CheckRange<T>(name, tensor, limits.vocabulary, "token ids");
  } else if (name == kTokenTypeIds) {
    CheckRange<T>(name, tensor, limits.token_types, "token types");
  } else if (name == kAttentionMask) {
    CheckMask<T>(name, tensor);
  }
}

// A floating-point number is finite where its exponent is not all ones.
template <typename Bits>
void CheckFinite(const std::string& name, const TensorView& tensor, Bits exponent) {
  const auto* values = static_cast<const unsigned char*>(tensor.data);
  bool any = false;
  for (size_t i = 0, count = tensor.count(); i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, values + i * sizeof bits, sizeof bits);
    any |= (bits & exponent) == exponent;
  }
  if (any) throw RequestError("input " + name + " holds NaN or infinite values");
}

void CheckBooleans(const std::string& name, const TensorView& tensor, const Limits& limits) {
  const auto* values = static_cast<const uint8_t*>(tensor.data);
  if (std::any_of(values, values + tensor.count(), [](uint8_t value) { return value > 1; })) {
    throw RequestError("input " + name + " holds a byte that is neither 0 nor 1");
  }
  CheckIntegers<uint8_t>(name, tensor, limits);
}

}  // namespace

std::string PlaceText(const std::string& name, const TensorView& tensor, size_t flat) {
  std::string place;
  for (size_t axis = tensor.rank; axis-- > 0;) {
    const auto size = static_cast<size_t>(tensor.shape[axis]);
    place = std::to_string(flat % size) + (place.empty() ? "" : ", ") + place;
    flat /= size;
  }
  return name + "[" + place + "]";
}

void CheckValues(const Feeds& feeds, const Manifest& manifest, const Limits& limits) {
  for (size_t i = 0; i < feeds.tensors.size(); ++i) {
    const std::string& name = manifest.inputs[i].name;
    const TensorView& tensor = feeds.tensors[i];
    if (name == kTaskId) continue;
    switch (tensor.dtype) {
      case EPTX_FLOAT16:
        CheckFinite<uint16_t>(name, tensor, 0x7C00);
        break;
      case EPTX_FLOAT32:
        CheckFinite<uint32_t>(name, tensor, 0x7F800000);
        break;
      case EPTX_FLOAT64:
        CheckFinite<uint64_t>(name, tensor, 0x7FF0000000000000);
        break;
      case EPTX_INT32:
        CheckIntegers<int32_t>(name, tensor, limits);
        break;
      case EPTX_INT64:
        CheckIntegers<int64_t>(name, tensor, limits);
        break;
      case EPTX_BOOL:
        CheckBooleans(name, tensor, limits);
        break;
    }
  }
  if (manifest.generation) CheckPadding(feeds, manifest);
}

}  // namespace eptx::core
