#include "validate/decode_loop.h"

#include <algorithm>
#include <cstring>

#include "readers/error.h"
#include "readers/request/feeds.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

constexpr int64_t kInfer = -1;   // the task id of rows whose task the bundle infers
constexpr int64_t kChosen = -1;  // stands for a token that the bundle will choose
constexpr char kMask[] = "attention_mask", kEncoderMask[] = "encoder_attention_mask";

// The output that feeds an input in the next call.
std::string SourceOf(const std::string& name) {
  if (!StartsWith(name, kPast)) return name + std::string(kUsed);
  return std::string(kPresent) + name.substr(kPast.size());
}

// Only what the model takes.
Values Known(const Values& values, const std::vector<TensorSpec>& specs) {
  Values known;
  for (const auto& [name, value] : values) {
    if (FindTensor(specs, name)) known.emplace(name, value);
  }
  return known;
}

std::shared_ptr<OrtValue> Tensor(const ProvedInput& input) {
  return MakeTensor(input.dtype, input.shape, input.data.get(), input.bytes);
}

}  // namespace

OrtValue* Find(const Values& values, const std::string& name) {
  const auto found = values.find(name);
  if (found == values.end()) throw BundleError("the model has no value " + Shorten(Repr(name), 60));
  return found->second.get();
}

DecodeLoop::DecodeLoop(const Manifest& manifest, const ProvedBatch& batch)
    : manifest_(manifest), batch_(batch), rows_(batch.rows()) {
  ReadTasks();
  if (!batch.prompt) return;
  prompt_ = static_cast<size_t>(*batch.prompt);
  length_ = static_cast<size_t>(batch.length);
  const auto answers = batch.inputs.find(std::string(kAnswerIds));
  tokens_ = LeftAligned(answers != batch.inputs.end() ? answers->second : batch.inputs.at(std::string(kInputIds)));
}

void DecodeLoop::ReadTasks() {
  const auto input = FindTensor(manifest_.inputs, kTaskId);
  if (!input) return;
  Numbers ids;
  for (const std::string& name : batch_.tasks) {
    const auto task = std::find_if(manifest_.tasks.begin(), manifest_.tasks.end(),
                                   [&](const Task& each) { return each.name == name; });
    if (name != kAutoTask && task == manifest_.tasks.end()) {
      throw BundleError(std::string(kManifestFile) + " names no task " + Repr(name) + ", which the adapter has");
    }
    ids.push_back(name == kAutoTask ? kInfer : task->id);
  }
  if (TaskPerRequest(manifest_)) ids.resize(1);
  given_[std::string(kTaskId)] = MakeTensor({static_cast<int64_t>(ids.size())}, ids);
}

void DecodeLoop::Run(const Graph& model, const Graph* encoder) {
  if (!batch_.prompt) {
    Values feeds = given_;
    for (const auto& [name, input] : batch_.inputs) feeds[name] = Tensor(input);
    calls_.push_back(model.Run(feeds));
    return;
  }
  const bool answers = batch_.inputs.count(std::string(kAnswerIds)) != 0;
  if (answers != (encoder != nullptr)) throw BundleError("the prompts are of another kind of model");
  mask_.assign(tokens_.size(), 1);
  if (encoder == nullptr) mask_ = LeftAligned(batch_.inputs.at(kMask));
  Values state;
  AddInitialState(state);
  for (const auto& [name, value] : given_) state[name] = value;
  if (encoder != nullptr) Encode(*encoder, state);
  for (size_t start = 0, stop = prompt_; start < length_; start = stop++) {
    state = Known(state, manifest_.inputs);
    Values feeds = Known(Feeds(start, stop), manifest_.inputs);
    feeds.insert(state.begin(), state.end());
    Values values = model.Run(feeds);
    if (stop < length_ && tokens_[stop] == kChosen) Choose(values, start, stop);
    for (auto& [name, value] : state) {
      const auto next = values.find(SourceOf(name));
      if (next != values.end()) value = next->second;
    }
    for (auto it = values.begin(); it != values.end();) it = StartsWith(it->first, kPresent) ? values.erase(it) : ++it;
    calls_.push_back(std::move(values));
  }
}

void DecodeLoop::Encode(const Graph& encoder, Values& state) {
  Values text = given_;
  for (const auto& [name, input] : batch_.inputs) {
    if (name != kAnswerIds) text[name] = Tensor(input);
  }
  encoded_ = encoder.Run(Known(text, manifest_.encoder->inputs));
  for (const auto& [name, value] : encoded_) state[name] = value;
  for (const auto& [name, value] : encoded_) {
    if (EndsWith(name, kUsed)) state[name.substr(0, name.size() - kUsed.size())] = value;
  }
  if (text.count(kMask) != 0) state[kEncoderMask] = text[kMask];
}

void DecodeLoop::AddInitialState(Values& state) const {
  eptx::core::Feeds owner;
  for (const TensorSpec& spec : manifest_.inputs) {
    if (!IsState(spec)) continue;
    const TensorView view = InitialState(spec, static_cast<int64_t>(rows_), owner);
    state[spec.name] = MakeTensor(view.dtype, {view.shape, view.shape + view.rank}, view.data, view.bytes);
  }
}

Values DecodeLoop::Feeds(size_t start, size_t stop) const {
  Numbers ids, shown, positions;
  for (size_t row = 0; row < rows_; ++row) {
    int64_t seen = 0;
    for (size_t at = 0; at < stop; ++at) {
      const int64_t mask = mask_[row * length_ + at];
      shown.push_back(mask);
      seen += mask;
      if (at < start) continue;
      ids.push_back(tokens_[row * length_ + at]);
      // padding stands behind the prompt and is numbered on, as in GenAI
      positions.push_back(start == 0 ? static_cast<int64_t>(at) : seen - 1);
    }
  }
  const auto rows = static_cast<int64_t>(rows_), width = static_cast<int64_t>(stop - start);
  Values feeds;
  feeds["input_ids"] = MakeTensor({rows, width}, ids);
  feeds[kMask] = MakeTensor({rows, static_cast<int64_t>(stop)}, shown);
  feeds["position_ids"] = MakeTensor({rows, width}, positions);
  return feeds;
}

// The likeliest token after each row's last of these positions; padding is behind them.
void DecodeLoop::Choose(const Values& values, size_t start, size_t stop) {
  const Array logits = ReadArray(Find(values, std::string(kLogits)));
  const auto width = static_cast<size_t>(logits.last()), positions = stop - start;
  if (width == 0 || logits.data.size() != rows_ * positions * width) throw BundleError("the logits have another shape");
  for (size_t row = 0; row < rows_; ++row) {
    int64_t count = 0;
    for (size_t at = start; at < stop; ++at) count += mask_[row * length_ + at];
    const size_t last =
        count > 0 && count <= static_cast<int64_t>(positions) ? static_cast<size_t>(count) - 1 : positions - 1;
    tokens_[row * length_ + stop] =
        static_cast<int64_t>(LargestOf(&logits.data[(row * positions + last) * width], width));
  }
}

size_t DecodeLoop::Shift(size_t row) const {
  if (!batch_.mask || row >= batch_.mask->rows) return 0;
  for (size_t at = 0; at < batch_.mask->length; ++at) {
    if (batch_.mask->kept[row * batch_.mask->length + at]) return at;
  }
  return 0;
}

DecodeLoop::Numbers DecodeLoop::LeftAligned(const ProvedInput& input) const {
  Numbers numbers(rows_ * length_), aligned;
  std::memcpy(numbers.data(), input.data.get(), input.bytes);
  aligned = numbers;
  for (size_t row = 0; row < rows_; ++row) {
    for (size_t at = 0; at < prompt_; ++at) {
      aligned[row * length_ + at] = numbers[row * length_ + (at + Shift(row)) % prompt_];
    }
  }
  return aligned;
}

Array DecodeLoop::Joined(const std::string& name, const Columns* columns) const {
  Array first = ReadArray(Find(calls_[0], name), columns);
  if (!batch_.prompt || first.rank() < 2 || EndsWith(name, kUsed)) return first;
  if (first.data.empty() || first.data.size() % (rows_ * prompt_) != 0) {
    throw BundleError("the value " + Shorten(Repr(name), 60) + " is not of the positions of its prompts");
  }
  const size_t width = first.data.size() / (rows_ * prompt_);
  Array joined{{static_cast<int64_t>(rows_), static_cast<int64_t>(length_), static_cast<int64_t>(width)},
               std::vector<double>(rows_ * length_ * width)};
  for (size_t row = 0; row < rows_; ++row) {
    for (size_t at = 0; at < prompt_; ++at) {  // the first is put behind the padding again
      const size_t to = (at + Shift(row)) % prompt_;
      std::copy_n(&first.data[(row * prompt_ + at) * width], width, &joined.data[(row * length_ + to) * width]);
    }
  }
  for (size_t call = 1; call < calls_.size(); ++call) {
    const Array one = ReadArray(Find(calls_[call], name), columns);
    if (one.data.size() != rows_ * width) {
      throw BundleError("the value " + Shorten(Repr(name), 60) + " is not of one position");
    }
    for (size_t row = 0; row < rows_; ++row) {
      std::copy_n(&one.data[row * width], width, &joined.data[(row * length_ + prompt_ + call - 1) * width]);
    }
  }
  return joined;
}

}  // namespace eptx::core
