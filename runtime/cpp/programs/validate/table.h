// The report of a validation as text for the terminal, as `eptx validate` prints it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace eptx::program {

using Report = nlohmann::ordered_json;

// A table for every backend, and at the end a line that sums each of them up.
std::string ReportText(const Report& report);

}  // namespace eptx::program
