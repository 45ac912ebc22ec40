#include "session/kernels.h"

#include <cstdlib>
#include <string_view>

#include "readers/error.h"
#ifdef EPTX_HAS_KERNELS
#include "ops/register.h"
#endif

namespace eptx::core {
namespace {

OrtCustomOpDomain* Domain([[maybe_unused]] const std::set<std::string>& operators) {
#ifdef EPTX_HAS_KERNELS
  return ops::MakeDomain(Api(), &operators);
#else
  return nullptr;
#endif
}

bool SwitchedOff() {
  const char* value = std::getenv("EPTX_NATIVE");
  return value != nullptr && std::string_view(value) == "0";
}

}  // namespace

Kernels ChooseKernels(eptx_kernels wanted, const Bundle& bundle) {
  if (!bundle.manifest().operators) return {nullptr, "the bundle has standard operators only"};
  if (wanted == EPTX_KERNELS_OFF) return {nullptr, "switched off by the options"};
  if (SwitchedOff()) return {nullptr, "switched off by EPTX_NATIVE=0"};
  Owned<OrtCustomOpDomain> domain(Domain(bundle.operators().own));
  if (domain) return {std::move(domain), {}};
#ifdef EPTX_HAS_KERNELS
  const std::string reason = "ONNX Runtime refuses them";
#else
  const std::string reason = "this libeptx was built without them";
#endif
  if (wanted == EPTX_KERNELS_ON) throw NotSupportedError("native kernels cannot run: " + reason);
  return {nullptr, reason};
}

}  // namespace eptx::core
