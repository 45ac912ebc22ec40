// What sessions share: ONNX Runtime's environment, and a thread pool and an arena where they are asked for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ort.h"

namespace eptx::core {

class Environment {
 public:
  // See eptx_environment_create.
  Environment(int32_t shared_threads, size_t arena_limit);

  const OrtEnv* get() const { return env_.get(); }
  bool shares_threads() const { return shares_threads_; }
  bool shares_arena() const { return shares_arena_; }

 private:
  void ShareArena(size_t limit);

  Owned<OrtEnv> env_;
  bool shares_threads_;
  bool shares_arena_;
};

}  // namespace eptx::core
