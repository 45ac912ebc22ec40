#include "session/session.h"

#include <algorithm>

#include "readers/error.h"
#include "readers/formats/json.h"
#include "session/load.h"

namespace eptx::core {
namespace {

constexpr uint64_t kPadding = 4u << 20;  // packed matrices are as wide as whole registers

// The most that a session takes of a shared arena before it runs: copies of its weights, packed for the kernels. Most
// bundles take half of it.
uint64_t ArenaNeed(const Options& options, const Manifest& manifest) {
  return options.arena ? WeightBytes(manifest) + kPadding : 0;
}

// See _LARGE in runtime/ort/model.py.
constexpr size_t kLarge = 4096;

}  // namespace

Session::Session(std::shared_ptr<const Environment> environment, const std::string& path, const Options& options)
    : environment_(std::move(environment)),
      bundle_(path, CheckedOptions(options, *environment_).verify),
      limits_{manifest().vocab_size, bundle_.token_types(), manifest().max_length},
      tasks_(manifest()),
      description_(manifest()),
      share_(*environment_, ArenaNeed(options, manifest())),
      gives_back_(options.arena && !environment_->shares_arena()) {
  for (const TensorSpec& spec : manifest().inputs) input_names_.push_back(spec.name.c_str());
  for (const TensorSpec& spec : manifest().outputs) output_names_.push_back(spec.name.c_str());
  memory_ = CpuMemory();
  try {
    Load(options);
  } catch (const Error&) {
    bundle_.FinishVerifying();  // a damaged file explains ONNX Runtime's error
    throw;
  }
  bundle_.FinishVerifying();
  info_ = Info();
}

void Session::Load(const Options& options) {
  if (const auto& needed = manifest().onnxruntime) CheckRelease(*needed);
  kernels_ = ChooseKernels(options.kernels, bundle_);
  try {
    model_ = LoadModel(*environment_, bundle_, options, kernels_, {bundle_.model(), nullptr});
  } catch (const Error& error) {
    if (!kernels_.domain || options.kernels == EPTX_KERNELS_ON || error.status() == EPTX_LIMIT) throw;
    // ONNX Runtime prefers a kernel to the model's function of the same name, even where the kernel does not fit.
    kernels_ = {nullptr, std::string("they do not load: ") + error.what()};
    model_ = LoadModel(*environment_, bundle_, options, kernels_, {bundle_.model(), nullptr});
  }
  CheckSignature(*model_, manifest());
}

Owned<OrtValue> Session::Wrap(const TensorView& tensor) const {
  OrtValue* value = nullptr;
  // ONNX Runtime writes to outputs only, so the const of inputs holds
  Check(Api().CreateTensorWithDataAsOrtValue(memory_.get(), const_cast<void*>(tensor.data), tensor.bytes, tensor.shape,
                                             tensor.rank, OrtType(tensor.dtype), &value),
        "ONNX Runtime refuses a tensor");
  return Owned<OrtValue>(value);
}

// What gives memory back after a large batch, which ONNX Runtime's arena would keep; null for others.
Owned<OrtRunOptions> Session::RunOptionsFor(const std::vector<Owned<OrtValue>>& inputs) const {
  size_t size = 0;
  for (size_t i = 0; gives_back_ && i < inputs.size(); ++i) {
    if (manifest().inputs[i].name.rfind(kPast, 0) == 0) continue;
    size_t elements = 1;
    for (int64_t length : ShapeOf(inputs[i].get())) elements *= static_cast<size_t>(length);
    size += elements;
  }
  if (size < kLarge) return nullptr;
  OrtRunOptions* made = nullptr;
  Check(Api().CreateRunOptions(&made), "ONNX Runtime cannot be set up");
  Owned<OrtRunOptions> options(made);
  Check(Api().AddRunConfigEntry(made, "memory.enable_memory_arena_shrinkage", "cpu:0"), "ONNX Runtime cannot be set up");
  return options;
}

void Session::Run(const std::vector<Owned<OrtValue>>& inputs, const std::vector<const char*>& names,
                  std::vector<Owned<OrtValue>>& outputs) const {
  std::vector<const OrtValue*> given;
  for (const auto& value : inputs) given.push_back(value.get());
  std::vector<OrtValue*> got;
  for (const auto& value : outputs) got.push_back(value.get());
  const auto options = RunOptionsFor(inputs);
  OrtStatus* failure = Api().Run(model_.get(), options.get(), input_names_.data(), given.data(), given.size(), names.data(),
                                 names.size(), got.data());
  for (size_t i = 0; i < got.size(); ++i) {
    if (!outputs[i]) outputs[i].reset(got[i]);
  }
  Check(failure, "ONNX Runtime fails on this request", EPTX_BAD_INPUT);
}

std::string Session::Info() const {
  const Manifest& m = manifest();
  Json info = {{"bundle", bundle_.path()},    {"mode", m.mode},           {"method", m.method},
               {"model_type", m.model_type},  {"precision", m.precision}, {"provider", "cpu"},
               {"onnxruntime", OrtVersion()}, {"eptx", eptx_version()}};
  for (const char* key : {"tasks", "inputs", "outputs"}) info[key] = Json::array();
  for (const Task& task : m.tasks) info["tasks"].push_back(task.name);
  for (const TensorSpec& spec : m.inputs) info["inputs"].push_back(spec.name);
  for (const TensorSpec& spec : m.outputs) info["outputs"].push_back(spec.name);
  const bool running = kernels_.domain != nullptr;
  info["kernels"]["running"] = running;
  info["kernels"]["reason"] = running ? Json() : Json(kernels_.reason);
  return info.dump(-1, ' ', false, Json::error_handler_t::replace);  // a path may be any bytes
}

}  // namespace eptx::core
