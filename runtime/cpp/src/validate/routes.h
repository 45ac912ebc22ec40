// What a bundle's routers chose, and which tasks it inferred, against what the reference's did.
#pragma once

#include "readers/proof/proof.h"
#include "validate/bundle_model.h"
#include "validate/results.h"

namespace eptx::core {

// Of rows whose task is inferred, that it is the reference's.
void CheckTasks(const ProvedBatch& batch, const Arrays& outputs, Results& results);

// EPT: of rows whose task was named, that the experts are the reference's.
void CheckExperts(const Proof& proof, const ProvedBatch& batch, const Observation& seen, Results& results);

// TuckA: that every module's group is the reference's.
void CheckGroups(const ProvedBatch& batch, const Observation& seen, Results& results);

}  // namespace eptx::core
