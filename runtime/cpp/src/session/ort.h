// ONNX Runtime's C API, with owners for its objects and its failures as errors of eptx.
#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "eptx.h"

namespace eptx::core {

// The functions of ONNX Runtime. Throws where the library that was found is older than the headers.
const OrtApi& Api();

// The version of the library that was found.
std::string OrtVersion();

// Throws where the library that was found is older than the release that a bundle needs.
void CheckRelease(const std::pair<int64_t, int64_t>& needed);

// Throws a failure with `status`, or with EPTX_LIMIT where memory ran out. `what` begins the message.
void Check(OrtStatus* failure, const std::string& what, eptx_status status = EPTX_INTERNAL);

struct OrtDelete {
  void operator()(OrtEnv* p) const { Api().ReleaseEnv(p); }
  void operator()(OrtThreadingOptions* p) const { Api().ReleaseThreadingOptions(p); }
  void operator()(OrtArenaCfg* p) const { Api().ReleaseArenaCfg(p); }
  void operator()(OrtMemoryInfo* p) const { Api().ReleaseMemoryInfo(p); }
  void operator()(OrtRunOptions* p) const { Api().ReleaseRunOptions(p); }
  void operator()(OrtSessionOptions* p) const { Api().ReleaseSessionOptions(p); }
  void operator()(OrtCustomOpDomain* p) const { Api().ReleaseCustomOpDomain(p); }
  void operator()(OrtSession* p) const { Api().ReleaseSession(p); }
  void operator()(OrtTypeInfo* p) const { Api().ReleaseTypeInfo(p); }
  void operator()(OrtTensorTypeAndShapeInfo* p) const { Api().ReleaseTensorTypeAndShapeInfo(p); }
  void operator()(OrtValue* p) const { Api().ReleaseValue(p); }
  void operator()(OrtStatus* p) const { Api().ReleaseStatus(p); }
};

template <typename T>
using Owned = std::unique_ptr<T, OrtDelete>;

// ONNX Runtime's number of an element type.
ONNXTensorElementDataType OrtType(eptx_dtype dtype);

// Where tensors of the processor are.
Owned<OrtMemoryInfo> CpuMemory();

// The elements of a tensor, and its shape.
void* DataOf(OrtValue* tensor);
std::vector<int64_t> ShapeOf(const OrtValue* tensor);

}  // namespace eptx::core
