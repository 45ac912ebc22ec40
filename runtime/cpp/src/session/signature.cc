// Compares the model's inputs and outputs with those of eptx.json.
#include <algorithm>
#include <map>
#include <utility>

#include "readers/error.h"
#include "readers/text.h"
#include "session/session.h"

namespace eptx::core {
namespace {

constexpr char kWhat[] = "ONNX Runtime does not describe the model";

struct Signature {
  ONNXTensorElementDataType type;
  std::vector<int64_t> shape;  // -1: it varies
  bool is_text = true;         // whether the names of the dimensions are UTF-8

  // Sizes that ONNX Runtime does not know are checked in requests and answers.
  bool operator==(const Signature& other) const {
    return type == other.type && std::equal(shape.begin(), shape.end(), other.shape.begin(), other.shape.end(),
                                            [](int64_t a, int64_t b) { return a == b || a < 0 || b < 0; });
  }
};

// The type is undefined where the value is not a tensor.
Signature Read(OrtTypeInfo* info) {
  const Owned<OrtTypeInfo> owner(info);
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  Check(Api().CastTypeInfoToTensorInfo(info, &tensor), kWhat);
  Signature signature{ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, {}};
  if (tensor == nullptr) return signature;
  Check(Api().GetTensorElementType(tensor, &signature.type), kWhat);
  size_t rank = 0;
  Check(Api().GetDimensionsCount(tensor, &rank), kWhat);
  signature.shape.resize(rank);
  Check(Api().GetDimensions(tensor, signature.shape.data(), rank), kWhat);
  std::vector<const char*> names(rank);
  Check(Api().GetSymbolicDimensions(tensor, names.data(), names.size()), kWhat);
  signature.is_text = std::all_of(names.begin(), names.end(), [](const char* name) { return IsUtf8(name); });
  return signature;
}

using Count = OrtStatus*(ORT_API_CALL*)(const OrtSession*, size_t*)NO_EXCEPTION;
using Name = OrtStatus*(ORT_API_CALL*)(const OrtSession*, size_t, OrtAllocator*, char**)NO_EXCEPTION;
using Type = OrtStatus*(ORT_API_CALL*)(const OrtSession*, size_t, OrtTypeInfo**)NO_EXCEPTION;

std::map<std::string, Signature> Has(const OrtSession& model, Count count, Name name, Type type) {
  OrtAllocator* allocator = nullptr;
  Check(Api().GetAllocatorWithDefaultOptions(&allocator), kWhat);
  size_t number = 0;
  Check(count(&model, &number), kWhat);
  std::map<std::string, Signature> result;
  for (size_t i = 0; i < number; ++i) {
    char* text = nullptr;
    Check(name(&model, i, allocator, &text), kWhat);
    const std::string key = text;
    Check(Api().AllocatorFree(allocator, text), kWhat);
    OrtTypeInfo* info = nullptr;
    Check(type(&model, i, &info), kWhat);
    result[key] = Read(info);
  }
  return result;
}

void Compare(const char* what, const std::vector<TensorSpec>& specs, const std::map<std::string, Signature>& has) {
  std::map<std::string, Signature> said;
  const bool is_text =
      std::all_of(has.begin(), has.end(), [](const auto& item) { return IsUtf8(item.first) && item.second.is_text; });
  if (!is_text) {
    throw BundleError(std::string("the model has an ") + what + " whose name or dimension's name is not UTF-8");
  }
  for (const TensorSpec& spec : specs) {
    Signature& signature = said[spec.name] = {OrtType(spec.dtype), {}};
    for (const Dimension& dimension : spec.shape) signature.shape.push_back(dimension.is_name ? -1 : dimension.size);
  }
  if (said == has) return;
  std::map<std::string, Signature> all = said;
  all.insert(has.begin(), has.end());
  for (const auto& [name, signature] : all) {
    const auto a = std::as_const(said).find(name), b = has.find(name);
    if (a != said.end() && b != has.end() && a->second == b->second) continue;
    throw BundleError(std::string("the model's ") + what + " " + Repr(name) + " is not what eptx.json says");
  }
}

}  // namespace

void CheckSignature(const OrtSession& model, const Manifest& manifest) {
  const OrtApi& api = Api();
  Compare("input", manifest.inputs,
          Has(model, api.SessionGetInputCount, api.SessionGetInputName, api.SessionGetInputTypeInfo));
  Compare("output", manifest.outputs,
          Has(model, api.SessionGetOutputCount, api.SessionGetOutputName, api.SessionGetOutputTypeInfo));
}

}  // namespace eptx::core
