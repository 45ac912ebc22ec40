#include "ops/kernel.h"

#include <new>
#include <utility>

namespace eptx::ops {
namespace {

const Operator& Of(const OrtCustomOp* op) { return *static_cast<const Operator*>(op); }

// A kernel and its operator.
struct Made {
  const Operator& op;
  std::unique_ptr<Kernel> kernel;
};

// Runs a function and turns what it throws into a status: no exception may reach ONNX Runtime.
template <class F>
OrtStatus* Guarded(const Operator& op, F f) noexcept {
  const OrtApi& api = op.api();
  try {
    f();
    return nullptr;
  } catch (const Refused& refused) {
    char text[512];
    std::snprintf(text, sizeof(text), "%s: %s", op.signature().name.c_str(), refused.text);
    return api.CreateStatus(static_cast<OrtErrorCode>(refused.code), text);
  } catch (const std::bad_alloc&) {
    return api.CreateStatus(ORT_FAIL, "an operator of ai.eptx failed to allocate memory");
  } catch (...) {
    return api.CreateStatus(ORT_FAIL, "an operator of ai.eptx failed");
  }
}

OrtStatus* Create(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
  return Guarded(Of(op), [&] {
    const Signature& signature = Of(op).signature();
    *kernel = new Made{Of(op), signature.make(Node(*api, info), signature)};
  });
}

OrtStatus* Compute(void* kernel, OrtKernelContext* context) {
  const Made& made = *static_cast<const Made*>(kernel);
  return Guarded(made.op, [&] { made.kernel->Compute(Call(made.op.api(), context)); });
}

// An output that is an update of an input has the input's shape. A shape that is not known stays unknown.
OrtStatus* InferShapes(const OrtCustomOp* op, OrtShapeInferContext* context) {
  const OrtApi& api = Of(op).api();
  for (size_t i = 0; i < Of(op).signature().in_place; ++i) {
    OrtTensorTypeAndShapeInfo* info = nullptr;  // owned by the context
    OrtStatus* status = api.ShapeInferContext_GetInputTypeShape(context, i, &info);
    if (status == nullptr && info != nullptr) status = api.ShapeInferContext_SetOutputTypeShape(context, i, info);
    if (status != nullptr) api.ReleaseStatus(status);
  }
  return nullptr;
}

// This callback gets no operator, so there is one for each count.
template <size_t count>
size_t InPlace(int** inputs, int** outputs) {
  *inputs = new (std::nothrow) int[count];
  *outputs = new (std::nothrow) int[count];
  if (*inputs == nullptr || *outputs == nullptr) return 0;
  for (size_t i = 0; i < count; ++i) (*inputs)[i] = (*outputs)[i] = static_cast<int>(i);
  return count;
}

void ReleaseInPlace(int* inputs, int* outputs) {
  delete[] inputs;
  delete[] outputs;
}

}  // namespace

Operator::Operator(const OrtApi& api, Signature signature)
    : OrtCustomOp{}, api_(api), signature_(std::move(signature)) {
  version = ORT_API_VERSION;
  GetName = [](const OrtCustomOp* op) { return Of(op).signature().name.c_str(); };
  GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return "CPUExecutionProvider"; };
  GetInputType = [](const OrtCustomOp* op, size_t i) { return Of(op).signature().inputs[i]; };
  GetInputTypeCount = [](const OrtCustomOp* op) { return Of(op).signature().inputs.size(); };
  GetOutputType = [](const OrtCustomOp* op, size_t i) { return Of(op).signature().outputs[i]; };
  GetOutputTypeCount = [](const OrtCustomOp* op) { return Of(op).signature().outputs.size(); };
  GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  GetVariadicInputMinArity = GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  GetVariadicInputHomogeneity = GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  GetStartVersion = [](const OrtCustomOp*) { return 1; };
  GetEndVersion = [](const OrtCustomOp*) { return 1; };
  CreateKernelV2 = Create;
  KernelComputeV2 = Compute;
  KernelDestroy = [](void* kernel) { delete static_cast<Made*>(kernel); };
  InferOutputShapeFn = InferShapes;
  constexpr decltype(GetMayInplace) in_place[] = {nullptr, InPlace<1>, InPlace<2>, InPlace<3>, InPlace<4>};
  static_assert(sizeof(in_place) / sizeof(*in_place) == kMaxModules + 1);
  GetMayInplace = in_place[signature_.in_place];
  ReleaseMayInplace = GetMayInplace == nullptr ? nullptr : ReleaseInPlace;
}

}  // namespace eptx::ops
