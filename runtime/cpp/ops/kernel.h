// How a kernel becomes an operator of ONNX Runtime.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/ort.h"

namespace eptx::ops {

// One node. Without state but for what it read off the model's constants: many threads may compute at once.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void Compute(const Call& call) const = 0;
};

constexpr ONNXTensorElementDataType kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr ONNXTensorElementDataType kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
// The kernel looks itself: adapter weights are float32 or float16.
constexpr ONNXTensorElementDataType kAny = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;

// At most so many modules are one node; the exporter's functions go up to the same number.
constexpr size_t kMaxModules = 4;

// How the modules of a node give their base outputs: each its own, or all as columns of one (a packed projection).
enum class Form { kSeparate, kPacked };

// The signature of an operator, and how its kernels are made.
struct Signature {
  std::string name;
  std::vector<ONNXTensorElementDataType> inputs;
  std::vector<ONNXTensorElementDataType> outputs;
  size_t in_place = 0;  // the first so many outputs have the shape of, and may overwrite, the inputs of the same index
  Form form = Form::kSeparate;
  bool biased = false;  // whether each base output comes with a bias to be added, right behind the base outputs
  size_t modules = 1;
  std::unique_ptr<Kernel> (*make)(const Node& node, const Signature& signature) = nullptr;
};

class Operator final : public OrtCustomOp {
 public:
  Operator(const OrtApi& api, Signature signature);
  const OrtApi& api() const { return api_; }
  const Signature& signature() const { return signature_; }

 private:
  const OrtApi& api_;
  Signature signature_;
};

}  // namespace eptx::ops
