#include "session/environment.h"

#include "readers/error.h"
#include "session/threads.h"

namespace eptx::core {
namespace {

constexpr char kWhat[] = "ONNX Runtime does not start";
constexpr char kName[] = "eptx";
constexpr OrtLoggingLevel kSilent = ORT_LOGGING_LEVEL_FATAL;  // failures are errors; nothing is printed

Owned<OrtEnv> MakeEnv(int32_t shared_threads) {
  OrtEnv* env = nullptr;
  if (shared_threads == 0) {
    Check(Api().CreateEnv(kSilent, kName, &env), kWhat);
    return Owned<OrtEnv>(env);
  }
  OrtThreadingOptions* made = nullptr;
  Check(Api().CreateThreadingOptions(&made), kWhat);
  const Owned<OrtThreadingOptions> threading(made);
  if (shared_threads > 0) Check(Api().SetGlobalIntraOpNumThreads(made, shared_threads), kWhat);
  Check(Api().SetGlobalInterOpNumThreads(made, 1), kWhat);  // operators run one after the other
  CheckRoomForThreads(shared_threads > 0 ? shared_threads : 0);
  Check(Api().CreateEnvWithGlobalThreadPools(kSilent, kName, made, &env), kWhat);
  return Owned<OrtEnv>(env);
}

}  // namespace

Environment::Environment(int32_t shared_threads, size_t arena_limit)
    : shares_threads_(shared_threads != 0), arena_limit_(arena_limit) {
  if (shared_threads < -1) {
    throw UsageError("shared_threads must be -1, 0 or a positive number, not " + std::to_string(shared_threads));
  }
  if (shared_threads > 0) CheckThreadCount(shared_threads, "shared_threads");
  env_ = MakeEnv(shared_threads);
  Check(Api().DisableTelemetryEvents(env_.get()), kWhat);  // a program's use of a model is private
  if (shares_arena()) MakeArena();
}

void Environment::MakeArena() {
  OrtMemoryInfo* info = nullptr;
  Check(Api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &info), kWhat);
  const Owned<OrtMemoryInfo> memory(info);
  // kSameAsRequested: an arena that grows by powers of two would reach its limit half empty
  const char* const keys[] = {"max_mem", "arena_extend_strategy"};
  const size_t values[] = {arena_limit_, 1};
  OrtArenaCfg* config = nullptr;
  Check(Api().CreateArenaCfgV2(keys, values, 2, &config), kWhat);
  const Owned<OrtArenaCfg> arena(config);
  Check(Api().CreateAndRegisterAllocator(env_.get(), info, config),
        "arena_limit: the process already has an ONNX Runtime environment, with an arena", EPTX_USAGE);
}

ArenaShare::ArenaShare(const Environment& environment, uint64_t weights)
    : environment_(environment), weights_(environment.shares_arena() ? weights : 0) {
  const uint64_t all = environment_.weights_ += weights_;
  if (all <= environment_.arena_limit_ || weights_ == 0) return;
  environment_.weights_ -= weights_;
  throw LimitError("arena_limit is " + std::to_string(environment_.arena_limit_) +
                   " bytes; the weights of the sessions that share it may take " + std::to_string(all));
}

ArenaShare::~ArenaShare() { environment_.weights_ -= weights_; }

}  // namespace eptx::core
