// The part of ONNX Runtime's C API that the kernels use. Tensors are checked for shape and type when they are read.
#pragma once

#include <onnxruntime_c_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <optional>

#include "ops/simd.h"
#include "ops/sizes.h"

namespace eptx::ops {

static_assert(ORT_INVALID_ARGUMENT == 2);

// A view of a tensor, valid as long as the tensor.
struct Tensor {
  static constexpr size_t kMaxRank = 8;

  const void* data = nullptr;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  size_t rank = 0;
  std::array<int64_t, kMaxRank> dims{};
  size_t size = 1;  // of all dimensions

  size_t dim(size_t axis) const { return static_cast<size_t>(dims[axis]); }
  size_t last() const { return rank ? dim(rank - 1) : 1; }

  const float* floats(const char* name) const {
    Expect(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, name);
    return static_cast<const float*>(data);
  }
  const int64_t* integers(const char* name) const {
    Expect(ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, name);
    return static_cast<const int64_t*>(data);
  }
  // A tensor of the adapter: float32 or float16, as rows of the last dimension.
  //
  // A dimension of 0 is refused: the tensor stores nothing, so its other dimensions could be any number. No adapter has
  // one.
  Weights weights(const char* name, size_t wanted_rank) const {
    Filled(wanted_rank, name);
    return numbers(name, wanted_rank);
  }
  const int64_t* table(const char* name, size_t wanted_rank) const {
    Filled(wanted_rank, name);
    return integers(name);
  }
  // A tensor of the call, like weights; there may be no rows.
  Weights numbers(const char* name, size_t wanted_rank) const {
    Ranked(wanted_rank, name);
    const bool half = type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    if (!half) Expect(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, name);
    return {data, half, last()};
  }
  void Ranked(size_t wanted, const char* name) const {
    if (rank != wanted) Refuse("%s has %zu dimensions, not %zu", name, rank, wanted);
  }
  void Filled(size_t wanted, const char* name) const {
    Ranked(wanted, name);
    for (size_t axis = 0; axis < rank; ++axis) {
      if (dims[axis] == 0) Refuse("dimension %zu of %s is 0", axis, name);
    }
  }

 private:
  void Expect(ONNXTensorElementDataType wanted, const char* name) const {
    if (type == wanted) return;
    Refuse("%s has element type %d, not %d", name, static_cast<int>(type), static_cast<int>(wanted));
  }
};

// ONNX Runtime's functions; failures are thrown.
class Ort {
 public:
  explicit Ort(const OrtApi& api) : api_(api) {}
  const OrtApi& api() const { return api_; }

  void Check(OrtStatus* status) const {
    if (status == nullptr) return;
    Refused refused;
    refused.code = api_.GetErrorCode(status);
    std::snprintf(refused.text, sizeof(refused.text), "%s", api_.GetErrorMessage(status));
    api_.ReleaseStatus(status);
    throw refused;
  }

  Tensor View(const OrtValue* value) const {
    if (value == nullptr) Refuse("an input is missing");
    OrtTensorTypeAndShapeInfo* info = nullptr;
    Check(api_.GetTensorTypeAndShape(value, &info));
    Tensor tensor;
    OrtStatus* status = api_.GetTensorElementType(info, &tensor.type);
    if (status == nullptr) status = api_.GetDimensionsCount(info, &tensor.rank);
    const bool fits = tensor.rank <= Tensor::kMaxRank;
    if (status == nullptr && fits) status = api_.GetDimensions(info, tensor.dims.data(), tensor.rank);
    api_.ReleaseTensorTypeAndShapeInfo(info);
    Check(status);
    if (!fits) Refuse("a tensor of %zu dimensions", tensor.rank);
    for (size_t axis = 0; axis < tensor.rank; ++axis) {
      if (tensor.dims[axis] < 0) Refuse("a tensor whose shape is out of range");
      tensor.size = Product(tensor.size, tensor.dim(axis));
    }
    // The C API has no const form of this.
    void* data = nullptr;
    Check(api_.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
    tensor.data = data;
    return tensor;
  }

 private:
  const OrtApi& api_;
};

// A node, while its kernel is made.
class Node {
 public:
  Node(const OrtApi& api, const OrtKernelInfo* info) : ort_(api), info_(info) {}

  int64_t Attribute(const char* name) const {
    int64_t value = 0;
    ort_.Check(ort_.api().KernelInfoGetAttribute_int64(info_, name, &value));
    return value;
  }

  // An input that is a constant of the model; it lives as long as the session.
  std::optional<Tensor> Constant(size_t index) const {
    int is_constant = 0;
    const OrtValue* value = nullptr;
    ort_.Check(ort_.api().KernelInfoGetConstantInput_tensor(info_, index, &is_constant, &value));
    if (is_constant == 0) return std::nullopt;
    return ort_.View(value);
  }

  const OrtApi& api() const { return ort_.api(); }

 private:
  Ort ort_;
  const OrtKernelInfo* info_;
};

// A call of a node.
class Call {
 public:
  Call(const OrtApi& api, OrtKernelContext* context) : ort_(api), context_(context) {}

  Tensor Input(size_t index) const {
    const OrtValue* value = nullptr;
    ort_.Check(ort_.api().KernelContext_GetInput(context_, index, &value));
    return ort_.View(value);
  }

  template <class T>
  T* Output(size_t index, const int64_t* dims, size_t rank) const {
    OrtValue* value = nullptr;
    ort_.Check(ort_.api().KernelContext_GetOutput(context_, index, dims, rank, &value));
    void* data = nullptr;
    ort_.Check(ort_.api().GetTensorMutableData(value, &data));
    return static_cast<T*>(data);
  }

  // Runs f(0) .. f(count - 1) on ONNX Runtime's own threads. f must not throw.
  template <class F>
  void ForEach(size_t count, const F& f) const {
    const auto run = [](void* data, size_t index) { (*static_cast<const F*>(data))(index); };
    ort_.Check(ort_.api().KernelContext_ParallelFor(context_, run, count, 0, const_cast<F*>(&f)));
  }

 private:
  Ort ort_;
  OrtKernelContext* context_;
};

}  // namespace eptx::ops
