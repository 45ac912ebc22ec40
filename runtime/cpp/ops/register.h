// How ONNX Runtime gets the operators.
#pragma once

#include <onnxruntime_c_api.h>

#include <set>
#include <string>

namespace eptx::ops {

// The domain ai.eptx with its kernels, or with those that `only` names: every session pays for each operator of a
// domain, 5 ms for all. The caller keeps the domain while sessions use it, then releases it. Null where ONNX Runtime
// refuses it or memory runs out.
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
