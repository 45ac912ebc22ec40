#include "session/ort.h"

#include <algorithm>
#include <cctype>
#include <cinttypes>
#include <cstdio>
#include <system_error>

#include "readers/error.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

constexpr char kNoOutput[] = "ONNX Runtime does not give an output";
constexpr const char* kOutOfMemory[] = {"failed to allocate", "bad_alloc", "bad allocation", "out of memory",
                                        "is smaller than requested bytes"};  // the last: the limit of an arena

bool IsOutOfMemory(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return std::any_of(std::begin(kOutOfMemory), std::end(kOutOfMemory),
                     [&](const char* sign) { return Contains(text, sign); });
}

// Whether a message of ONNX Runtime says that the machine ran out of something. It gives its reasons as text only.
bool SaysExhausted(const std::string& text) {
  return std::any_of(std::begin(kExhausted), std::end(kExhausted),
                     [&](int code) { return Contains(text, std::generic_category().message(code)); });
}

}  // namespace

const OrtApi& Api() {
  static const OrtApi* const api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    throw NotSupportedError("ONNX Runtime " + OrtVersion() + " is too old; this libeptx needs 1." +
                            std::to_string(ORT_API_VERSION) + " or newer");
  }
  return *api;
}

std::string OrtVersion() { return OrtGetApiBase()->GetVersionString(); }

void CheckRelease(const std::pair<int64_t, int64_t>& needed) {
  const std::string found = OrtVersion();
  std::pair<int64_t, int64_t> has;
  if (std::sscanf(found.c_str(), "%" SCNd64 ".%" SCNd64, &has.first, &has.second) != 2 || has >= needed) return;
  const auto shown = [](const auto& release) {
    return std::to_string(release.first) + "." + std::to_string(release.second);
  };
  throw NotSupportedError("the bundle needs ONNX Runtime " + shown(needed) + " or newer, and " + found +
                          " is installed: install a newer one, or export again with --min-ort " + shown(has));
}

void Check(OrtStatus* failure, const std::string& what, eptx_status status) {
  if (failure == nullptr) return;
  const Owned<OrtStatus> owner(failure);
  const char* const message = Api().GetErrorMessage(failure);
  const std::string text = OneLine(message);
  if (SaysExhausted(message)) throw LimitError(what + ": " + text);
  if (IsOutOfMemory(message)) throw LimitError(what + ": not enough memory: " + text);
  throw Error(status, what + ": " + text);
}

ONNXTensorElementDataType OrtType(eptx_dtype dtype) {
  switch (dtype) {
    case EPTX_FLOAT16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case EPTX_FLOAT32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    case EPTX_FLOAT64:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;
    case EPTX_INT32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
    case EPTX_INT64:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    case EPTX_BOOL:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

Owned<OrtMemoryInfo> CpuMemory() {
  OrtMemoryInfo* memory = nullptr;
  Check(Api().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory), "ONNX Runtime cannot be set up");
  return Owned<OrtMemoryInfo>(memory);
}

void* DataOf(OrtValue* tensor) {
  void* data = nullptr;
  Check(Api().GetTensorMutableData(tensor, &data), kNoOutput);
  return data;
}

std::vector<int64_t> ShapeOf(const OrtValue* tensor) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  Check(Api().GetTensorTypeAndShape(tensor, &info), kNoOutput);
  const Owned<OrtTensorTypeAndShapeInfo> owner(info);
  size_t rank = 0;
  Check(Api().GetDimensionsCount(info, &rank), kNoOutput);
  std::vector<int64_t> shape(rank);
  Check(Api().GetDimensions(info, shape.data(), rank), kNoOutput);
  return shape;
}

}  // namespace eptx::core
