// What sessions share: ONNX Runtime's environment, and a thread pool and an arena where they are asked for.
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
  mutable std::atomic<uint64_t> weights_{0};  // what sessions may have packed into the arena
};

// A session's part of the shared arena, where there is one, given back at the end of the session.
//
// ONNX Runtime packs weights into an arena without a look at its limit, and once past it never looks again; so the
// limit must have room for all weights.
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
