#include "validate/graph.h"

#include <cstring>

namespace eptx::core {
namespace {

constexpr char kWhat[] = "ONNX Runtime does not describe the model";

OrtAllocator* Allocator() {
  OrtAllocator* allocator = nullptr;
  Check(Api().GetAllocatorWithDefaultOptions(&allocator), kWhat);
  return allocator;
}

}  // namespace

std::shared_ptr<OrtValue> MakeTensor(eptx_dtype dtype, const std::vector<int64_t>& shape, const void* data,
                                     size_t bytes) {
  OrtValue* made = nullptr;
  Check(Api().CreateTensorAsOrtValue(Allocator(), shape.data(), shape.size(), OrtType(dtype), &made),
        "ONNX Runtime refuses a tensor");
  std::shared_ptr<OrtValue> tensor(made, OrtDelete());
  if (bytes != 0) std::memcpy(DataOf(made), data, bytes);
  return tensor;
}

std::shared_ptr<OrtValue> MakeTensor(const std::vector<int64_t>& shape, const std::vector<int64_t>& numbers) {
  return MakeTensor(EPTX_INT64, shape, numbers.data(), numbers.size() * sizeof(int64_t));
}

Graph::Graph(Owned<OrtSession> session) : session_(std::move(session)) {
  size_t count = 0;
  Check(Api().SessionGetOutputCount(session_.get(), &count), kWhat);
  for (size_t i = 0; i < count; ++i) {
    char* name = nullptr;
    Check(Api().SessionGetOutputName(session_.get(), i, Allocator(), &name), kWhat);
    outputs_.emplace_back(name);
    Check(Api().AllocatorFree(Allocator(), name), kWhat);
  }
}

Values Graph::Run(const Values& feeds) const {
  std::vector<const char*> names, wanted;
  std::vector<const OrtValue*> given;
  for (const auto& [name, value] : feeds) {
    names.push_back(name.c_str());
    given.push_back(value.get());
  }
  for (const std::string& name : outputs_) wanted.push_back(name.c_str());
  std::vector<OrtValue*> got(wanted.size());
  OrtStatus* failure = Api().Run(session_.get(), nullptr, names.data(), given.data(), given.size(), wanted.data(),
                                 wanted.size(), got.data());
  Values found;
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] != nullptr) found[outputs_[i]] = std::shared_ptr<OrtValue>(got[i], OrtDelete());
  }
  Check(failure, "the model does not run", EPTX_BAD_INPUT);
  return found;
}

}  // namespace eptx::core
