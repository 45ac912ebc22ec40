#include "session/answer.h"

#include <algorithm>
#include <cstring>

#include "readers/dtype.h"
#include "readers/error.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

std::vector<Owned<OrtValue>> WrapAll(const Session& session, const std::vector<TensorView>& tensors) {
  std::vector<Owned<OrtValue>> values;
  values.reserve(tensors.size());
  for (const TensorView& tensor : tensors) values.push_back(session.Wrap(tensor));
  return values;
}

const TensorSpec& FindOutput(const char* name, const Manifest& manifest) {
  if (name == nullptr) throw UsageError("an output has no name: it is NULL");
  std::vector<std::string> known;
  for (const TensorSpec& spec : manifest.outputs) {
    if (spec.name == name) return spec;
    known.push_back(spec.name);
  }
  throw RequestError("no output " + Shorten(Repr(name), 60) + "; the model has " + Join(known));
}

// Sets the size of an output from the sizes of the inputs.
void Measure(const TensorSpec& spec, const Feeds& feeds, eptx_output& output) {
  const std::string about = "output " + spec.name;
  if (output.dtype != spec.dtype) {
    throw RequestError(about + " is given as " + DtypeName(output.dtype) + "; the model gives " +
                       DtypeName(spec.dtype));
  }
  const char* const advice = "; use eptx_session_run";
  if (spec.shape.size() > EPTX_MAX_RANK) {
    throw NotSupportedError(about + " has " + std::to_string(spec.shape.size()) + " dimensions" + advice);
  }
  output.rank = spec.shape.size();
  for (size_t axis = 0; axis < output.rank; ++axis) {
    const Dimension& dimension = spec.shape[axis];
    const auto size = dimension.is_name ? feeds.SizeOf(dimension.name) : dimension.size;
    if (!size) {
      throw NotSupportedError(about + ": its " + dimension.name + " does not follow from the inputs" + advice);
    }
    output.shape[axis] = *size;
  }
  const auto bytes = TensorBytes(spec.dtype, output.shape, output.rank);
  if (!bytes) throw LimitError(about + " would be too large");
  output.bytes = *bytes;
}

void CheckTarget(const std::string& name, const eptx_output& output) {
  if (output.capacity < output.bytes) {
    throw RequestError("output " + name + " needs " + std::to_string(output.bytes) + " bytes; its buffer has " +
                       std::to_string(output.capacity));
  }
  if (output.bytes != 0 && output.data == nullptr) throw UsageError("output " + name + " has no data: it is NULL");
  if (reinterpret_cast<uintptr_t>(output.data) % DtypeSize(output.dtype) != 0) {
    throw RequestError("output " + name + " is not aligned for " + DtypeName(output.dtype));
  }
}

// Checks that an output has the sizes that eptx.json gives, and logits for all labels of a task. Callers rely on it.
void CheckSizes(const Manifest& manifest, size_t index, const std::vector<int64_t>& shape) {
  const TensorSpec& spec = manifest.outputs[index];
  bool fits = shape.size() == spec.shape.size();
  for (size_t axis = 0; fits && axis < shape.size(); ++axis) {
    fits = spec.shape[axis].is_name || spec.shape[axis].size == shape[axis];
  }
  int64_t labels = 0;
  for (const Task& task : manifest.tasks) labels = std::max(labels, task.labels.value_or(0));
  if (fits && (spec.name != kLogits || labels <= shape.back())) return;
  throw BundleError("the model's output " + spec.name + " has shape " + ShapeText(shape.data(), shape.size()) +
                    ", which is not what eptx.json says");
}

}  // namespace

Answer::Answer(std::shared_ptr<const Session> session, const eptx_request& request) : session_(std::move(session)) {
  const Manifest& manifest = session_->manifest();
  Feeds feeds = ReadInputs(request, manifest, session_->limits());
  CheckValues(feeds, manifest, session_->limits());
  session_->tasks().Choose(request, feeds);
  session_->tasks().CheckIds(feeds);
  session_->tasks().CheckTokens(feeds);
  values_.resize(manifest.outputs.size());
  session_->Run(WrapAll(*session_, feeds.tensors), session_->output_names(), values_);
  outputs_.reserve(values_.size());
  shapes_.reserve(values_.size());
  TensorView used{};
  for (size_t i = 0; i < values_.size(); ++i) {
    Describe(i);
    const std::string& name = manifest.outputs[i].name;
    const bool is_used = name == kTaskIdUsed;
    if ((is_used || name == kLogits) && (shapes_[i].empty() || shapes_[i][0] != feeds.batch)) {
      throw BundleError("the model's output " + name + " has shape " + ShapeText(shapes_[i].data(), shapes_[i].size()) +
                        " for a batch of " + std::to_string(feeds.batch));
    }
    CheckSizes(manifest, i, shapes_[i]);
    if (is_used) used = {outputs_[i].dtype, outputs_[i].rank, outputs_[i].shape, outputs_[i].data, outputs_[i].bytes};
  }
  rows_ = session_->tasks().Rows(feeds, used.data != nullptr ? &used : nullptr);
}

void Answer::Describe(size_t index) {
  const TensorSpec& spec = session_->manifest().outputs[index];
  const std::vector<int64_t>& shape = shapes_.emplace_back(ShapeOf(values_[index].get()));
  const auto bytes = TensorBytes(spec.dtype, shape.data(), shape.size());
  outputs_.push_back({sizeof(eptx_tensor), spec.name.c_str(), spec.dtype, shape.size(), shape.data(),
                      DataOf(values_[index].get()), bytes.value_or(0)});
}

Call::Call(std::shared_ptr<const Session> session, const eptx_request& request, eptx_output* outputs, size_t count)
    : session_(std::move(session)), feeds_(ReadInputs(request, session_->manifest(), session_->limits())) {
  session_->tasks().Choose(request, feeds_);
  feeds_.OwnShapes();
  if (count == 0) throw UsageError("no output is asked for");
  std::vector<const TensorSpec*> specs;
  for (size_t i = 0; i < count; ++i) {
    const TensorSpec& spec = FindOutput(outputs[i].name, session_->manifest());
    if (std::count(specs.begin(), specs.end(), &spec) != 0) {
      throw RequestError("output " + spec.name + " is given twice");
    }
    specs.push_back(&spec);
    Measure(spec, feeds_, outputs[i]);
  }
  std::vector<TensorView> targets;
  for (size_t i = 0; i < count; ++i) {
    const eptx_output& output = outputs[i];
    CheckTarget(specs[i]->name, output);
    names_.push_back(specs[i]->name.c_str());
    targets.push_back({output.dtype, output.rank, output.shape, output.data, output.bytes});
  }
  inputs_ = WrapAll(*session_, feeds_.tensors);
  outputs_ = WrapAll(*session_, targets);
}

void Call::Run() {
  CheckValues(feeds_, session_->manifest(), session_->limits());
  session_->tasks().CheckIds(feeds_);
  session_->tasks().CheckTokens(feeds_);
  session_->Run(inputs_, names_, outputs_);
}

}  // namespace eptx::core
