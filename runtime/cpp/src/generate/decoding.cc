#include "generate/decoding.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "readers/error.h"
#include "readers/half.h"

namespace eptx::core {
namespace {

constexpr size_t kLogitsAt = 0, kPresents = 1;  // the order of the outputs; last comes what the model chose

// Positions of a row of the cache. Refuses sizes that do not fit the address space.
size_t Capacity(size_t rows, size_t longest, int64_t max_new_tokens) {
  const size_t capacity = longest + static_cast<size_t>(max_new_tokens) - 1;  // the model never reads the last token
  if (capacity > size_t{kMostTokens} || rows > SIZE_MAX / sizeof(int64_t) / capacity)
    throw LimitError("the prompts are too large");
  return capacity;
}

}  // namespace

Decoding::Decoding(const Session& session, const Decoder& decoder, const Prompts& prompts, const eptx_prompts& given,
                   int64_t max_new_tokens)
    : session_(session),
      decoder_(decoder),
      rows_(prompts.rows.size()),
      longest_(prompts.longest),
      inputs_(session.manifest().inputs.size()),
      outputs_(kPresents + decoder.cache.size() + decoder.chosen.size()) {
  const size_t capacity = Capacity(rows_, longest_, max_new_tokens);
  names_.push_back(session.output_names()[decoder.logits]);
  for (const auto& pair : decoder.cache) names_.push_back(session.output_names()[pair.output]);
  for (const auto& pair : decoder.chosen) names_.push_back(session.output_names()[pair.output]);
  FeedTasks(given);
  session.tasks().CheckTokens(prompts, feeds_);
  FeedPrompts(prompts);
  FeedCache(capacity);
  Run(longest_);
  KeepChosen();
}

void Decoding::FeedTasks(const eptx_prompts& given) {
  const Manifest& m = session_.manifest();
  feeds_.batch = static_cast<int64_t>(rows_);
  feeds_.tensors.assign(inputs_.size(), TensorView{});
  session_.tasks().Choose({sizeof(eptx_request), nullptr, 0, given.tasks, given.task_count}, feeds_);
  for (const auto& [input, output] : decoder_.chosen) {
    if (IsState(m.inputs[input])) feeds_.tensors[input] = InitialState(m.inputs[input], feeds_.batch, feeds_);
  }
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (feeds_.tensors[i].data != nullptr) inputs_[i] = session_.Wrap(feeds_.tensors[i]);
  }
}

void Decoding::FeedPrompts(const Prompts& prompts) {
  ids_.assign(rows_ * longest_, session_.manifest().generation->pad);
  for (size_t row = 0; row < rows_; ++row) {
    const auto& [ids, length] = prompts.rows[row];
    std::copy_n(ids, length, &ids_[row * longest_]);
    lengths_.push_back(length);
  }
  Feed(decoder_.ids, ids_, longest_);
  FeedMask();
}

void Decoding::FeedMask() {
  const size_t width = longest_ + steps_;
  mask_.assign(rows_ * width, 1);
  for (size_t row = 0; row < rows_; ++row) {
    std::fill_n(&mask_[row * width] + lengths_[row], longest_ - lengths_[row], 0);
  }
  Feed(decoder_.mask, mask_, width);
}

void Decoding::FeedCache(size_t capacity) {
  for (size_t i = 0; i < decoder_.cache.size(); ++i) {
    const TensorSpec& spec = session_.manifest().inputs[decoder_.cache[i].input];
    const int64_t shape[] = {feeds_.batch, spec.shape[1].size, static_cast<int64_t>(capacity), spec.shape[3].size};
    const auto bytes = TensorBytes(spec.dtype, shape, 4);
    if (!bytes) throw LimitError("the cache would be too large");
    void* const buffer = std::calloc(*bytes, 1);  // the system gives memory only for pages that rows reach
    if (buffer == nullptr) throw std::bad_alloc();
    cache_.emplace_back(buffer);
    const TensorView view{spec.dtype, 4, shape, buffer, *bytes};
    inputs_[decoder_.cache[i].input] = session_.Wrap(view);
    outputs_[kPresents + i] = session_.Wrap(view);
  }
}

void Decoding::Feed(size_t input, const std::vector<int64_t>& values, size_t width) {
  const int64_t shape[] = {static_cast<int64_t>(rows_), static_cast<int64_t>(width)};
  inputs_[input] = session_.Wrap({EPTX_INT64, 2, shape, values.data(), values.size() * sizeof(int64_t)});
}

void Decoding::Step(const std::vector<int64_t>& tokens) {
  const bool first = steps_++ == 0;
  ids_ = tokens;
  Feed(decoder_.ids, ids_, 1);
  FeedMask();
  if (first) outputs_[kLogitsAt].reset();  // ONNX Runtime allocates them anew; later steps reuse that memory
  Run(1);
}

void Decoding::Run(size_t width) {
  session_.Run(inputs_, names_, outputs_);
  const std::vector<int64_t> shape = ShapeOf(outputs_[kLogitsAt].get());
  width_ = width;
  if (shape.size() != 3 || shape[0] != feeds_.batch || shape[1] != static_cast<int64_t>(width) || shape[2] < 1) {
    throw BundleError("the model's output logits is not [batch, length, vocabulary]");
  }
  stride_ = static_cast<size_t>(shape[2]);
  const auto known = static_cast<uint64_t>(session_.limits().vocabulary.value_or(shape[2]));
  vocabulary_ = std::min(stride_, static_cast<size_t>(known));
}

void Decoding::KeepChosen() {
  const Manifest& m = session_.manifest();
  TensorView used{};
  const size_t first = kPresents + decoder_.cache.size();
  for (size_t i = 0; i < decoder_.chosen.size(); ++i) {
    const auto [input, output] = decoder_.chosen[i];
    const TensorSpec& spec = m.inputs[input];
    Owned<OrtValue>& value = outputs_[first + i];
    const std::vector<int64_t> shape = ShapeOf(value.get());
    if (shape.size() != spec.shape.size() || shape[0] != feeds_.batch) {
      throw BundleError("the model's output " + m.outputs[output].name + " is not one for each row");
    }
    if (spec.name == kTaskId) used = {spec.dtype, 1, nullptr, DataOf(value.get()), 0};
    inputs_[input] = std::move(value);
  }
  outputs_.resize(first);
  names_.resize(first);
  tasks_ = session_.tasks().Rows(feeds_, used.data != nullptr ? &used : nullptr);
}

const float* Decoding::Logits(size_t row) {
  const size_t position = row * width_ + (steps_ == 0 ? lengths_[row] - 1 : 0);
  const void* const data = DataOf(outputs_[kLogitsAt].get());
  if (session_.manifest().outputs[decoder_.logits].dtype == EPTX_FLOAT32) {
    return static_cast<const float*>(data) + position * stride_;
  }
  const auto* halves = static_cast<const uint16_t*>(data) + position * stride_;
  scratch_.resize(vocabulary_);
  std::transform(halves, halves + vocabulary_, scratch_.begin(), HalfToFloat);
  return scratch_.data();
}

}  // namespace eptx::core
