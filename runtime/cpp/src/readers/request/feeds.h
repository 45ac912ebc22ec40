// One request: its inputs, checked before ONNX Runtime sees them.
//
// ONNX Runtime wraps negative token ids without an error. What it refuses, it reports in the words of an operator deep
// in the graph. The errors here name the input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eptx.h"
#include "readers/bundle/manifest.h"

namespace eptx::core {

// The limits of a model; none where a limit is unknown.
struct Limits {
  std::optional<int64_t> vocabulary;   // number of token ids
  std::optional<int64_t> token_types;  // number of token types
  std::optional<int64_t> length;       // largest number of tokens in a row
};

// A tensor in somebody else's memory.
struct TensorView {
  eptx_dtype dtype;
  size_t rank;
  const int64_t* shape;
  const void* data;
  size_t bytes;

  size_t count() const;
};

// The tensors to feed, in the order of the manifest's inputs. Inputs that a request leaves out are made here. `task_id`
// has no data until TaskChooser sets it, unless the request gives it.
struct Feeds {
  std::vector<TensorView> tensors;
  std::vector<std::pair<std::string_view, int64_t>> sizes;  // of the dimensions that vary
  std::vector<std::unique_ptr<std::byte[]>> defaults;
  int64_t batch = 0;
  bool has_task_id = false;  // given by the request

  // A new buffer that lives as long as the feeds.
  std::byte* Own(size_t bytes);

  // Copies the shapes, so that the request's may go.
  void OwnShapes();

  std::optional<int64_t> SizeOf(std::string_view dimension) const;
};

// Reads a request: checks names and types, and that shapes agree with the model and with each other. Shapes and buffers
// stay the request's: they are not copied.
Feeds ReadInputs(const eptx_request& request, const Manifest& manifest, const Limits& limits);

// Checks all values except those of `task_id`: ranges of token ids and types, masks, finite numbers.
void CheckValues(const Feeds& feeds, const Manifest& manifest, const Limits& limits);

// Whether an input carries state from earlier tokens: the cache, or the route.
bool IsState(const TensorSpec& spec);

// The state before the first token: an empty cache, and -1 for a route, which lets the model choose.
TensorView InitialState(const TensorSpec& spec, int64_t batch, Feeds& feeds);

// Checks that a decoder's mask is as long as its rows and hides only their ends (part of CheckValues).
void CheckPadding(const Feeds& feeds, const Manifest& manifest);

// `NAME[1, 2]`: where a tensor has its value number `flat`.
std::string PlaceText(const std::string& name, const TensorView& tensor, size_t flat);

// The bytes of a tensor; none where a dimension is negative or the tensor is larger than the address space.
std::optional<size_t> TensorBytes(eptx_dtype dtype, const int64_t* shape, size_t rank);

}  // namespace eptx::core
