// Runs a bundle's models on one backend and compares what they give with the proof.
#pragma once

#include "readers/proof/proof.h"
#include "validate/bundle_model.h"
#include "validate/results.h"

namespace eptx::core {

Results CompareWith(const Proof& proof, const Opener& opener);

}  // namespace eptx::core
