#include "ops/register.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

#include "ops/domain.h"
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
    AddTokenMixtureDelta(signatures);
    AddPooledMixtureDelta(signatures);
    AddTopExperts(signatures);
    AddChosenExperts(signatures);
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
    OrtStatus* status = api.CreateCustomOpDomain(kOperatorDomain, domain);
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

namespace {

// The operators that the options name; by default all. A session pays for each: 10 MB and 6 ms for all.
std::string Wanted(const OrtApi& api, const OrtSessionOptions* options) {
  constexpr char kKey[] = "ai.eptx.operators";
  int has = 0;
  size_t size = 0;
  if (OrtStatus* status = api.HasSessionConfigEntry(options, kKey, &has)) api.ReleaseStatus(status);
  if (has == 0) return "*";
  if (OrtStatus* status = api.GetSessionConfigEntry(options, kKey, nullptr, &size)) api.ReleaseStatus(status);
  std::string value(size, '\0');
  if (OrtStatus* status = api.GetSessionConfigEntry(options, kKey, value.data(), &size)) api.ReleaseStatus(status);
  while (!value.empty() && value.back() == '\0') value.pop_back();
  return value;
}

std::set<std::string> Names(const std::string& list) {
  std::set<std::string> names;
  for (size_t begin = 0; begin < list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    names.insert(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

// A domain for every list of operators. Domains are never freed, as sessions use them; the library stays loaded.
OrtCustomOpDomain* Domain(const OrtApi& api, const std::string& wanted) {
  static std::mutex mutex;
  static std::map<std::string, OrtCustomOpDomain*> domains;
  const std::lock_guard<std::mutex> lock(mutex);
  OrtCustomOpDomain*& domain = domains[wanted];
  if (domain == nullptr) {
    const std::set<std::string> names = Names(wanted);
    domain = eptx::ops::MakeDomain(api, wanted == "*" ? nullptr : &names);
  }
  return domain;
}

}  // namespace

#define EPTX_TEXT(value) #value
#define EPTX_TEXT_OF(macro) EPTX_TEXT(macro)
constexpr char kTooOld[] =  // as in src/session/ort.cc
    "the kernels of ai.eptx need ONNX Runtime 1." EPTX_TEXT_OF(ORT_API_VERSION) " or newer";

OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    // This ONNX Runtime does not know the API of the headers. Its first version reports that.
    api = base->GetApi(1);
    return api->CreateStatus(ORT_NOT_IMPLEMENTED, kTooOld);
  }
  try {
    OrtCustomOpDomain* const domain = Domain(*api, Wanted(*api, options));
    if (domain == nullptr) return api->CreateStatus(ORT_FAIL, "the operators of ai.eptx cannot be made");
    return api->AddCustomOpDomain(options, domain);
  } catch (...) {
    return api->CreateStatus(ORT_FAIL, "the operators of ai.eptx failed to allocate memory");
  }
}
