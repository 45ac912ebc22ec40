// Whether the machine has room for a pool's threads.
#pragma once

#include <cstdint>

namespace eptx::core {

// Throws where a pool is to have fewer than no threads, or more than any should have; `name` is that of the option.
void CheckThreadCount(int32_t count, const char* name);

// Throws where a pool of so many threads, the caller's own one included, cannot be started; 0: as many as processors.
//
// ONNX Runtime hangs for good where only some threads of a pool can be started. So as many, and a few more, are started
// here just before.
void CheckRoomForThreads(int32_t count);

}  // namespace eptx::core
