// How a kernel becomes an operator of ONNX Runtime.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/ort.h"

namespace eptx::ops {

// One node. Its only state is what it read from the model's constants, so many threads may compute at once.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void Compute(const Call& call) const = 0;
};

constexpr ONNXTensorElementDataType kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr ONNXTensorElementDataType kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
// The kernel checks the type: adapter weights are float32 or float16.
constexpr ONNXTensorElementDataType kAny = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;

// The most modules of one node. The exporter's functions have the same limit.
constexpr size_t kMaxModules = 4;

// How the modules of a node give their base outputs: each its own, or all as columns of one (a packed projection).
enum class Form { kSeparate, kPacked };

// The signature of an operator, and how its kernels are made.
struct Signature {
  std::string name;
  std::vector<ONNXTensorElementDataType> inputs;
  std::vector<ONNXTensorElementDataType> outputs;
  size_t in_place = 0;  // how many first outputs have the shape of the input of the same index, and may overwrite it
  Form form = Form::kSeparate;
  bool biased = false;  // whether a bias for each base output follows the base outputs
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
