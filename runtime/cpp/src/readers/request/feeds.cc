#include "readers/request/feeds.h"

#include <algorithm>
#include <cstring>

#include "readers/dtype.h"
#include "readers/error.h"
#include "readers/request/versioned.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

std::string InputNames(const Manifest& manifest) {
  std::vector<std::string> names;
  for (const TensorSpec& spec : manifest.inputs) {
    if (spec.name != kTaskId) names.push_back(spec.name);
  }
  return Join(names);
}

size_t IndexOf(const std::string& name, const Manifest& manifest) {
  if (const auto found = FindTensor(manifest.inputs, name)) return *found;
  if (name == kTaskId) {
    throw RequestError("no input 'task_id': this bundle does not choose the task by a request");
  }
  throw RequestError("no input " + Shorten(Repr(name), 60) + "; the model has " + InputNames(manifest));
}

void CheckBuffer(const TensorSpec& spec, const eptx_input& input) {
  const std::string about = "input " + spec.name;
  if (input.dtype != spec.dtype) {
    throw RequestError(about + " is " + DtypeName(input.dtype) + "; the model takes " + DtypeName(spec.dtype));
  }
  if (input.rank != spec.shape.size()) {
    std::vector<std::string> wanted;
    for (const Dimension& dimension : spec.shape) wanted.push_back(dimension.Text());
    throw RequestError(about + " has " + std::to_string(input.rank) + " dimensions; the model takes [" + Join(wanted) +
                       "]");
  }
  if (input.shape == nullptr) throw UsageError(about + " has no shape: it is NULL");
  const auto bytes = TensorBytes(input.dtype, input.shape, input.rank);
  if (!bytes) throw RequestError(about + " has a shape that is negative or too large");
  if (*bytes != input.bytes) {
    throw RequestError(about + " has " + std::to_string(input.bytes) + " bytes; its shape needs " +
                       std::to_string(*bytes));
  }
  if (*bytes != 0 && input.data == nullptr) throw UsageError(about + " has no data: it is NULL");
  CheckArray(input.data, *bytes, 1, "the data of " + about);
  if (reinterpret_cast<uintptr_t>(input.data) % DtypeSize(input.dtype) != 0) {
    throw RequestError(about + " is not aligned for " + DtypeName(input.dtype));
  }
}

// `first_of`: the input that gave each of `feeds.sizes`.
void CheckShape(const TensorSpec& spec, const TensorView& tensor, const Limits& limits, Feeds& feeds,
                std::vector<const std::string*>& first_of) {
  const std::string about = "input " + spec.name;
  for (size_t axis = 0; axis < tensor.rank; ++axis) {
    const Dimension& dimension = spec.shape[axis];
    const int64_t size = tensor.shape[axis];
    if (size == 0) {
      throw RequestError(about + " is empty: its " +
                         (dimension.is_name ? dimension.name : "dimension " + std::to_string(axis)) + " is 0");
    }
    if (!dimension.is_name) {
      if (size != dimension.size) {
        throw RequestError(about + " has " + std::to_string(size) + " in dimension " + std::to_string(axis) +
                           "; the model takes " + std::to_string(dimension.size));
      }
    } else if (IsIdentifier(dimension.name)) {
      const auto known = std::find_if(feeds.sizes.begin(), feeds.sizes.end(),
                                      [&](const auto& pair) { return pair.first == dimension.name; });
      if (known == feeds.sizes.end()) {
        feeds.sizes.emplace_back(dimension.name, size);
        first_of.push_back(&spec.name);
      } else if (known->second != size) {
        throw RequestError(about + " has " + dimension.name + " " + std::to_string(size) + "; " +
                           *first_of[static_cast<size_t>(known - feeds.sizes.begin())] + " has " +
                           std::to_string(known->second));
      }
    }
    if (dimension.is_name && dimension.name == "length" && limits.length && size > *limits.length) {
      throw RequestError(about + " has " + std::to_string(size) + " tokens a row; the model reads at most " +
                         std::to_string(*limits.length));
    }
  }
}

template <typename T>
void Fill(std::byte* data, size_t count, int value) {
  for (size_t i = 0; i < count; ++i) {
    const auto one = static_cast<T>(value);
    std::memcpy(data + i * sizeof(T), &one, sizeof(T));
  }
}

void FillAs(eptx_dtype dtype, std::byte* data, size_t count, int value) {
  constexpr uint16_t kHalfOne = 0x3C00;
  switch (dtype) {
    case EPTX_FLOAT16:
      return Fill<uint16_t>(data, count, value == 0 ? 0 : kHalfOne);
    case EPTX_FLOAT32:
      return Fill<float>(data, count, value);
    case EPTX_FLOAT64:
      return Fill<double>(data, count, value);
    case EPTX_INT32:
      return Fill<int32_t>(data, count, value);
    case EPTX_INT64:
      return Fill<int64_t>(data, count, value);
    case EPTX_BOOL:
      return Fill<uint8_t>(data, count, value);
  }
}

// The shape that the sizes of the inputs given so far make of an input's; null if one of them is not known.
const int64_t* KnownShape(const TensorSpec& spec, Feeds& feeds) {
  auto* shape = reinterpret_cast<int64_t*>(feeds.Own(spec.shape.size() * sizeof(int64_t)));
  for (size_t axis = 0; axis < spec.shape.size(); ++axis) {
    const Dimension& dimension = spec.shape[axis];
    const auto size = dimension.is_name ? feeds.SizeOf(dimension.name) : std::optional<int64_t>(dimension.size);
    if (!size) return nullptr;
    shape[axis] = *size;
  }
  return shape;
}

// An input that the request leaves out. It has the shape of input_ids, or of the sound that is given.
TensorView Default(const TensorSpec& spec, const TensorView* ids, Feeds& feeds) {
  const bool is_mask = spec.name == kAttentionMask;
  const int64_t* shape = nullptr;
  if (is_mask || spec.name == kTokenTypeIds) {
    const bool alike = ids != nullptr && spec.shape.size() == ids->rank;
    shape = alike ? ids->shape : KnownShape(spec, feeds);
  }
  if (shape == nullptr) throw RequestError("input " + spec.name + " is missing");
  const auto bytes = TensorBytes(spec.dtype, shape, spec.shape.size());
  if (!bytes) throw LimitError("input " + spec.name + " would be too large");
  std::byte* data = feeds.Own(*bytes);
  FillAs(spec.dtype, data, *bytes / DtypeSize(spec.dtype), is_mask ? 1 : 0);
  return {spec.dtype, spec.shape.size(), shape, data, *bytes};
}

}  // namespace

size_t TensorView::count() const { return bytes / DtypeSize(dtype); }

std::byte* Feeds::Own(size_t bytes) {
  defaults.push_back(std::make_unique<std::byte[]>(bytes));
  return defaults.back().get();
}

void Feeds::OwnShapes() {
  for (TensorView& tensor : tensors) {
    std::byte* shape = Own(tensor.rank * sizeof(int64_t));
    std::memcpy(shape, tensor.shape, tensor.rank * sizeof(int64_t));
    tensor.shape = reinterpret_cast<const int64_t*>(shape);
  }
}

std::optional<int64_t> Feeds::SizeOf(std::string_view dimension) const {
  for (const auto& [name, size] : sizes) {
    if (name == dimension) return size;
  }
  return {};
}

std::optional<size_t> TensorBytes(eptx_dtype dtype, const int64_t* shape, size_t rank) {
  size_t bytes = DtypeSize(dtype);
  bool empty = false;
  for (size_t axis = 0; axis < rank; ++axis) {
    if (shape[axis] < 0) return {};
    if (shape[axis] == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(shape[axis]), &bytes)) {
      return {};
    }
  }
  if (bytes > size_t{PTRDIFF_MAX}) return {};
  return empty ? 0 : bytes;
}

Feeds ReadInputs(const eptx_request& request, const Manifest& manifest, const Limits& limits) {
  if (manifest.has_encoder) throw NotSupportedError("this bundle is an encoder-decoder, which libeptx does not run");
  Feeds feeds;
  feeds.tensors.assign(manifest.inputs.size(), TensorView{});
  std::vector<size_t> given;
  for (size_t i = 0; i < request.input_count; ++i) {
    const eptx_input& input = request.inputs[i];
    if (input.name == nullptr) throw UsageError("an input has no name: it is NULL");
    const size_t index = IndexOf(input.name, manifest);
    const TensorSpec& spec = manifest.inputs[index];
    if (IsState(spec)) throw NotSupportedError("input " + spec.name + " cannot be given: use eptx_session_generate");
    if (std::find(given.begin(), given.end(), index) != given.end()) {
      throw RequestError("input " + spec.name + " is given twice");
    }
    CheckBuffer(spec, input);
    given.push_back(index);
    feeds.tensors[index] = {input.dtype, input.rank, input.shape, input.data, input.bytes};
    feeds.has_task_id = feeds.has_task_id || spec.name == kTaskId;
  }
  std::vector<const std::string*> first_of;
  for (const size_t index : given) {
    const TensorSpec& spec = manifest.inputs[index];
    if (spec.name == kTaskId) continue;
    CheckShape(spec, feeds.tensors[index], limits, feeds, first_of);
    if (feeds.batch == 0) feeds.batch = feeds.tensors[index].shape[0];
  }
  const TensorView* ids = nullptr;
  for (const size_t index : given) {
    if (manifest.inputs[index].name == kInputIds) ids = &feeds.tensors[index];
  }
  for (size_t index = 0; index < manifest.inputs.size(); ++index) {
    const TensorSpec& spec = manifest.inputs[index];
    if (feeds.tensors[index].shape == nullptr && spec.name != kTaskId) {
      const bool is_state = IsState(spec) && feeds.batch != 0;
      feeds.tensors[index] = is_state ? InitialState(spec, feeds.batch, feeds) : Default(spec, ids, feeds);
    }
  }
  // texts and images may be batches of their own: then the request has one task
  if (TaskPerRequest(manifest)) feeds.batch = 1;
  return feeds;
}

}  // namespace eptx::core
