// A small proof that is sound, to be damaged.
#pragma once

#include <string>

#include "mutate.h"

namespace eptx::fuzz {

std::string SeedProof();

// Changes its header, the object that it holds, or bytes anywhere. Its digest is another then.
std::string MutateProof(Random& random);

}  // namespace eptx::fuzz
