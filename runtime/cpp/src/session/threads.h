// Checks that the machine has room for the threads of a pool.
#pragma once

#include <cstdint>

namespace eptx::core {

// Throws where the number of threads is negative or larger than any pool should have. `name` is the option's.
void CheckThreadCount(int32_t count, const char* name);

// Throws where a pool of so many threads, the caller's included, cannot be started. 0: as many as processors.
//
// ONNX Runtime hangs forever where it can start only some threads of a pool. So this starts as many threads, and a few
// more, just before.
void CheckRoomForThreads(int32_t count);

}  // namespace eptx::core
