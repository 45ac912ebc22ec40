// Where ONNX Runtime finds the operators.
#pragma once

#include <onnxruntime_c_api.h>

#include <set>
#include <string>

namespace eptx::ops {

// The domain ai.eptx with its kernels, or those among them that `only` names: ONNX Runtime describes every operator of
// a domain anew for every session, for 5 ms in all. The caller keeps it while sessions that use it live, and releases
// it. Null when ONNX Runtime refuses it or memory runs out.
OrtCustomOpDomain* MakeDomain(const OrtApi& api, const std::set<std::string>* only = nullptr) noexcept;

}  // namespace eptx::ops

extern "C" {

// What onnxruntime.SessionOptions.register_custom_ops_library calls.
#if defined(_WIN32)
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
OrtStatus*
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base);

}  // extern "C"
