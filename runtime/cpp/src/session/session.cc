#include "session/session.h"

#include <algorithm>

#include "readers/error.h"
#include "readers/formats/json.h"
#include "readers/text.h"
#include "session/threads.h"

namespace eptx::core {
namespace {

constexpr uint64_t kFoldingLimit = 64u << 20;
constexpr uint64_t kPadding = 4u << 20;  // packed matrices are as wide as whole registers
constexpr char kWhat[] = "ONNX Runtime cannot be set up";

uint64_t WeightBytes(const Manifest& manifest) {
  uint64_t bytes = 0;
  for (const auto& [name, entry] : manifest.files) bytes += entry.size;
  return bytes;
}

void Configure(OrtSessionOptions* options, const char* key, const std::string& value) {
  Check(Api().AddSessionConfigEntry(options, key, value.c_str()), kWhat);
}

Owned<OrtSessionOptions> MakeOptions(const Options& wanted, const Manifest& manifest, const Environment& environment) {
  OrtSessionOptions* made = nullptr;
  Check(Api().CreateSessionOptions(&made), kWhat);
  Owned<OrtSessionOptions> options(made);
  Check(Api().SetSessionLogSeverityLevel(made, ORT_LOGGING_LEVEL_FATAL), kWhat);
  // A small model can ask constant folding for gigabytes; a bundle's weights need no more than their size.
  Configure(made, "optimization.constant_folding_max_output_size_in_bytes",
            std::to_string(std::max(WeightBytes(manifest), kFoldingLimit)));
  // On AVX2, sums of int8 products saturate. ONNX Runtime avoids that with this entry.
  Configure(made, "session.x64quantprecision", "1");
  if (environment.shares_threads()) {
    Check(Api().DisablePerSessionThreads(made), kWhat);
  } else if (wanted.threads != 0) {
    Check(Api().SetIntraOpNumThreads(made, wanted.threads), kWhat);
  }
  if (!wanted.arena) {
    Check(Api().DisableCpuMemArena(made), kWhat);
  } else if (environment.shares_arena()) {
    Configure(made, "session.use_env_allocators", "1");
  }
  return options;
}

// ONNX Runtime has one environment for the process. Only here it says that this one has no pool.
void CheckPool(OrtStatus* failure) {
  if (failure == nullptr || !Contains(Api().GetErrorMessage(failure), "CreateEnvWithGlobalThreadPools")) return;
  Api().ReleaseStatus(failure);
  throw UsageError("shared_threads: the process already has an ONNX Runtime environment, without a pool");
}

// The most that a session takes of a shared arena before it runs: copies of its weights, packed for the kernels. Most
// bundles take half of it.
uint64_t ArenaNeed(const Options& options, const Manifest& manifest) {
  return options.arena ? WeightBytes(manifest) + kPadding : 0;
}

// The options, checked.
const Options& Checked(const Options& options, const Environment& environment) {
  CheckThreadCount(options.threads, "threads");
  if (options.threads != 0 && environment.shares_threads()) {
    throw UsageError("threads must be 0 in an environment that shares a pool");
  }
  if (options.kernels < EPTX_KERNELS_AUTO || options.kernels > EPTX_KERNELS_OFF) {
    throw UsageError("kernels must be AUTO, ON or OFF");
  }
  return options;
}

}  // namespace

Session::Session(std::shared_ptr<const Environment> environment, const std::string& path, const Options& options)
    : environment_(std::move(environment)),
      bundle_(path, Checked(options, *environment_).verify),
      limits_{manifest().vocab_size, bundle_.token_types(), manifest().max_length},
      tasks_(manifest()),
      description_(manifest()),
      share_(*environment_, ArenaNeed(options, manifest())) {
  for (const TensorSpec& spec : manifest().inputs) input_names_.push_back(spec.name.c_str());
  for (const TensorSpec& spec : manifest().outputs) output_names_.push_back(spec.name.c_str());
  OrtMemoryInfo* memory = nullptr;
  Check(Api().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory), kWhat);
  memory_.reset(memory);
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
    model_ = Create(options);
  } catch (const Error& error) {
    if (!kernels_.domain || options.kernels == EPTX_KERNELS_ON || error.status() == EPTX_LIMIT) throw;
    // ONNX Runtime prefers a kernel to the model's function of the same name, even where the kernel does not fit.
    kernels_ = {nullptr, std::string("they do not load: ") + error.what()};
    model_ = Create(options);
  }
  CheckSignature(*model_, manifest());
}

Owned<OrtSession> Session::Create(const Options& wanted) const {
  const auto options = MakeOptions(wanted, manifest(), *environment_);
  if (kernels_.domain) {
    Check(Api().AddCustomOpDomain(options.get(), kernels_.domain.get()), kWhat);
    // Kernels replace these functions, so ONNX Runtime need not inline them.
    if (bundle_.operators().functions_are_own) Configure(options.get(), "session.disable_aot_function_inlining", "1");
  }
  const std::string& exported_for = manifest().provider;
  const std::string hint = exported_for == "cpu" ? "" : " (the bundle was exported for " + exported_for + ")";
  if (!environment_->shares_threads()) CheckRoomForThreads(wanted.threads);
  OrtSession* model = nullptr;
  OrtStatus* failure = Api().CreateSession(environment_->get(), bundle_.model().c_str(), options.get(), &model);
  CheckPool(failure);
  Check(failure, std::string(kModelFile) + ": ONNX Runtime does not load it" + hint, EPTX_BAD_INPUT);
  return Owned<OrtSession>(model);
}

Owned<OrtValue> Session::Wrap(const TensorView& tensor) const {
  OrtValue* value = nullptr;
  // ONNX Runtime writes to outputs only, so the const of inputs holds
  Check(Api().CreateTensorWithDataAsOrtValue(memory_.get(), const_cast<void*>(tensor.data), tensor.bytes, tensor.shape,
                                             tensor.rank, OrtType(tensor.dtype), &value),
        "ONNX Runtime refuses a tensor");
  return Owned<OrtValue>(value);
}

void Session::Run(const std::vector<Owned<OrtValue>>& inputs, const std::vector<const char*>& names,
                  std::vector<Owned<OrtValue>>& outputs) const {
  std::vector<const OrtValue*> given;
  for (const auto& value : inputs) given.push_back(value.get());
  std::vector<OrtValue*> got;
  for (const auto& value : outputs) got.push_back(value.get());
  OrtStatus* failure = Api().Run(model_.get(), nullptr, input_names_.data(), given.data(), given.size(), names.data(),
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
