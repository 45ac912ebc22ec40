// Where ONNX Runtime finds the operators.
#pragma once

#include <onnxruntime_c_api.h>

namespace eptx::ops {

// The domain ai.eptx with its kernels. The caller keeps it while sessions that use it live, and releases it.
// Null when ONNX Runtime refuses it or memory runs out.
OrtCustomOpDomain* MakeDomain(const OrtApi& api) noexcept;

}  // namespace eptx::ops

extern "C" {

// What onnxruntime.SessionOptions.register_custom_ops_library calls.
#if defined(_WIN32)
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base);

}  // extern "C"
