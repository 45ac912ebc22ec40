// What a decoder's graph reads besides tokens, where a request gives all tokens of its rows in one call.
#include <algorithm>
#include <cstring>

#include "readers/dtype.h"
#include "readers/error.h"
#include "readers/request/feeds.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

// Whether all ones come before all zeros.
template <typename T>
bool IsPaddedOnTheRight(const T* row, size_t length) {
  return std::is_sorted(row, row + length, [](T a, T b) { return a > b; });
}

}  // namespace

bool IsState(const TensorSpec& spec) {
  return StartsWith(spec.name, kPast) || spec.name == kRouteGroup || spec.name == kRouteWeights;
}

TensorView InitialState(const TensorSpec& spec, int64_t batch, Feeds& feeds) {
  auto* const shape = reinterpret_cast<int64_t*>(feeds.Own(spec.shape.size() * sizeof(int64_t)));
  for (size_t axis = 0; axis < spec.shape.size(); ++axis) {
    shape[axis] = axis == 0 ? batch : spec.shape[axis].is_name ? 0 : spec.shape[axis].size;
  }
  const auto bytes = TensorBytes(spec.dtype, shape, spec.shape.size());
  if (!bytes) throw LimitError("input " + spec.name + " would be too large");
  std::byte* const data = feeds.Own(*bytes);
  std::memset(data, spec.name == kRouteGroup ? 0xFF : 0, *bytes);  // -1: the model chooses
  return {spec.dtype, spec.shape.size(), shape, data, *bytes};
}

void CheckPadding(const Feeds& feeds, const Manifest& manifest) {
  const TensorView& mask = feeds.tensors[*FindTensor(manifest.inputs, kAttentionMask)];
  const TensorView& ids = feeds.tensors[*FindTensor(manifest.inputs, kInputIds)];
  if (mask.shape[1] != ids.shape[1]) {
    throw RequestError("input attention_mask has length " + std::to_string(mask.shape[1]) + "; input_ids have " +
                       std::to_string(ids.shape[1]));
  }
  const auto length = static_cast<size_t>(mask.shape[1]);
  for (size_t row = 0; row < static_cast<size_t>(mask.shape[0]); ++row) {
    const bool right = mask.dtype == EPTX_INT64
                           ? IsPaddedOnTheRight(static_cast<const int64_t*>(mask.data) + row * length, length)
                           : mask.dtype == EPTX_INT32 &&
                                 IsPaddedOnTheRight(static_cast<const int32_t*>(mask.data) + row * length, length);
    if (!right) {
      throw RequestError("input attention_mask hides tokens of row " + std::to_string(row) + " before others");
    }
  }
}

}  // namespace eptx::core
