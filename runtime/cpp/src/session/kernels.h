// Whether a bundle's own operators run as the native kernels that are linked in.
#pragma once

#include <string>

#include "eptx.h"
#include "readers/bundle/bundle.h"
#include "session/ort.h"

namespace eptx::core {

struct Kernels {
  Owned<OrtCustomOpDomain> domain;  // null: the model's own functions run
  std::string reason;               // why there are no kernels
};

// Throws EPTX_NOT_SUPPORTED where kernels are required and cannot run.
Kernels ChooseKernels(eptx_kernels wanted, const Bundle& bundle);

}  // namespace eptx::core
