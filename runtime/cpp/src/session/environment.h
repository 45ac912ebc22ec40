// What sessions share: ONNX Runtime's environment, and if wanted a thread pool and an arena.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "session/ort.h"

namespace eptx::core {

class Environment {
 public:
  // See eptx_environment_create.
  Environment(int32_t shared_threads, size_t arena_limit);

  const OrtEnv* get() const { return env_.get(); }
  bool shares_threads() const { return shares_threads_; }
  bool shares_arena() const { return arena_limit_ != 0; }

 private:
  friend class ArenaShare;

  void MakeArena();

  Owned<OrtEnv> env_;
  bool shares_threads_;
  size_t arena_limit_;
  mutable std::atomic<uint64_t> weights_{0};  // bytes of weights that sessions may pack into the arena
};

// A session's part of the shared arena, if there is one. The destructor gives it back.
//
// ONNX Runtime packs weights into an arena without checking its limit, and does not check again once the limit is
// passed. So the limit must have room for all weights.
class ArenaShare {
 public:
  ArenaShare(const Environment& environment, uint64_t weights);
  ArenaShare(const ArenaShare&) = delete;
  ArenaShare& operator=(const ArenaShare&) = delete;
  ~ArenaShare();

 private:
  const Environment& environment_;
  uint64_t weights_;
};

}  // namespace eptx::core
