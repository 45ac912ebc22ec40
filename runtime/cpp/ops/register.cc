#include "ops/register.h"

#include <memory>

#include "ops/operators.h"

namespace eptx::ops {
namespace {

using Operators = std::vector<std::unique_ptr<Operator>>;

// Made once and never changed; sessions share them.
const Operators& All(const OrtApi& api) {
  static const Operators operators = [&] {
    std::vector<Signature> signatures;
    AddPyramidRouter(signatures);
    AddPyramidDelta(signatures);
    AddRoutedPyramidDelta(signatures);
    AddTuckerRouter(signatures);
    AddTuckerDelta(signatures);
    AddLowRankDelta(signatures);
    Operators made;
    for (Signature& signature : signatures) made.push_back(std::make_unique<Operator>(api, std::move(signature)));
    return made;
  }();
  return operators;
}

OrtStatus* Fill(const OrtApi& api, const std::set<std::string>* only, OrtCustomOpDomain* domain) {
  for (const auto& op : All(api)) {
    if (only != nullptr && only->count(op->signature().name) == 0) continue;
    if (OrtStatus* status = api.CustomOpDomain_Add(domain, op.get())) return status;
  }
  return nullptr;
}

OrtStatus* Make(const OrtApi& api, const std::set<std::string>* only, OrtCustomOpDomain** domain) noexcept {
  *domain = nullptr;
  try {
    OrtStatus* status = api.CreateCustomOpDomain("ai.eptx", domain);
    return status != nullptr ? status : Fill(api, only, *domain);
  } catch (...) {
    return api.CreateStatus(ORT_FAIL, "the operators of ai.eptx failed to allocate memory");
  }
}

}  // namespace

OrtCustomOpDomain* MakeDomain(const OrtApi& api, const std::set<std::string>* only) noexcept {
  OrtCustomOpDomain* domain = nullptr;
  OrtStatus* status = Make(api, only, &domain);
  if (status == nullptr) return domain;
  api.ReleaseStatus(status);
  if (domain != nullptr) api.ReleaseCustomOpDomain(domain);
  return nullptr;
}

}  // namespace eptx::ops

OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    // Too old to know this API, so its own first version has to say so.
    api = base->GetApi(1);
    return api->CreateStatus(ORT_NOT_IMPLEMENTED, "the kernels of ai.eptx need ONNX Runtime 1.21 or newer");
  }
  // One domain for the process, which outlives every session; the library is never unloaded while one lives.
  static OrtCustomOpDomain* const domain = eptx::ops::MakeDomain(*api);
  if (domain == nullptr) return api->CreateStatus(ORT_FAIL, "the operators of ai.eptx cannot be made");
  return api->AddCustomOpDomain(options, domain);
}
