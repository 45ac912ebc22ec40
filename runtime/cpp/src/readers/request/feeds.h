// One request: its inputs, checked before ONNX Runtime sees them.
//
// ONNX Runtime by itself wraps negative token ids, and reports what it does notice in the words of an operator deep in
// the graph. Here each error names the input.
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

// What a model can read, where known.
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

// The tensors to feed, in the order of the manifest's inputs; those that a request leaves out are made here. The one of
// `task_id` has no data until it is set, unless the request gives it.
struct Feeds {
  std::vector<TensorView> tensors;
  std::vector<std::pair<std::string_view, int64_t>> sizes;  // of the dimensions that vary, by name
  std::vector<std::unique_ptr<std::byte[]>> defaults;
  int64_t batch = 0;
  bool has_task_id = false;  // given by the request

  // A new buffer that lives as long as the feeds.
  std::byte* Own(size_t bytes);

  // Copies the shapes, which else are the request's.
  void OwnShapes();

  std::optional<int64_t> SizeOf(std::string_view dimension) const;
};

// Reads a request: names, types, shapes that agree with the model and each other. The request's shapes are referred to,
// not copied; so are its buffers.
Feeds ReadInputs(const eptx_request& request, const Manifest& manifest, const Limits& limits);

// Checks every value but those of `task_id`: ranges of token ids and types, masks, finite numbers.
void CheckValues(const Feeds& feeds, const Manifest& manifest, const Limits& limits);

// Whether an input is what a decoder knows of the tokens before: its cache and route.
bool IsState(const TensorSpec& spec);

// The state before the first token: an empty cache, and a route that the model is to choose.
TensorView InitialState(const TensorSpec& spec, int64_t batch, Feeds& feeds);

// Checks that the mask of a decoder's rows is as long as they are and hides their ends only (part of CheckValues).
void CheckPadding(const Feeds& feeds, const Manifest& manifest);

// The bytes of a tensor, or none where they do not fit the address space or a dimension is negative.
std::optional<size_t> TensorBytes(eptx_dtype dtype, const int64_t* shape, size_t rank);

}  // namespace eptx::core
