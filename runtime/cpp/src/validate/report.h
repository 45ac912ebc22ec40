// What a validation found, as the JSON that `eptx validate --against-proof --json` writes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "readers/formats/json.h"
#include "readers/proof/proof.h"
#include "validate/verdict.h"

namespace eptx::core {

using Report = nlohmann::ordered_json;

struct BackendReport {
  std::string operators;  // what the bundle's own operators ran as: "standard" if it has none
  std::vector<TaskReport> tasks;

  std::string name() const { return operators == "standard" ? "cpu" : "cpu, " + operators; }
};

struct Found {
  Json manifest;  // eptx.json
  std::vector<BackendReport> backends;
  Report checks;  // of the recording, and of what the proof is bound to
  std::vector<std::string> warnings;
  std::vector<std::pair<std::string, double>> seconds;  // of each stage
};

// The report; its fields `passed` and `reason` say the verdict.
Report MakeReport(const Found& found, const Proof& proof);

}  // namespace eptx::core
