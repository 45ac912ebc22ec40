#include "session/load.h"

#include <algorithm>

#include "readers/error.h"
#include "readers/formats/files.h"
#include "readers/text.h"
#include "session/threads.h"

namespace eptx::core {
namespace {

constexpr uint64_t kFoldingLimit = 64u << 20;
constexpr char kWhat[] = "ONNX Runtime cannot be set up";

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

}  // namespace

uint64_t WeightBytes(const Manifest& manifest) {
  uint64_t bytes = 0;
  for (const auto& [name, entry] : manifest.files) bytes += entry.size;
  return bytes;
}

const Options& CheckedOptions(const Options& options, const Environment& environment) {
  CheckThreadCount(options.threads, "threads");
  if (options.threads != 0 && environment.shares_threads()) {
    throw UsageError("threads must be 0 in an environment that shares a pool");
  }
  if (options.kernels < EPTX_KERNELS_AUTO || options.kernels > EPTX_KERNELS_OFF) {
    throw UsageError("kernels must be AUTO, ON or OFF");
  }
  return options;
}

Owned<OrtSession> LoadModel(const Environment& environment, const Bundle& bundle, const Options& wanted,
                            const Kernels& kernels, const ModelSource& source) {
  const auto options = MakeOptions(wanted, bundle.manifest(), environment);
  if (kernels.domain) {
    Check(Api().AddCustomOpDomain(options.get(), kernels.domain.get()), kWhat);
    // Kernels replace these functions, so ONNX Runtime need not inline them.
    if (bundle.operators().functions_are_own) Configure(options.get(), "session.disable_aot_function_inlining", "1");
  }
  const std::string& exported_for = bundle.manifest().provider;
  const std::string hint = exported_for == "cpu" ? "" : " (the bundle was exported for " + exported_for + ")";
  if (!environment.shares_threads()) CheckRoomForThreads(wanted.threads);
  OrtSession* model = nullptr;
  OrtStatus* failure = nullptr;
  if (source.bytes != nullptr) {
    Configure(options.get(), "session.model_external_initializers_file_folder_path", bundle.path());
    failure = Api().CreateSessionFromArray(environment.get(), source.bytes->data(), source.bytes->size(), options.get(),
                                           &model);
  } else {
    failure = Api().CreateSession(environment.get(), source.path.c_str(), options.get(), &model);
  }
  CheckPool(failure);
  Check(failure, BaseName(source.path) + ": ONNX Runtime does not load it" + hint, EPTX_BAD_INPUT);
  return Owned<OrtSession>(model);
}

}  // namespace eptx::core
