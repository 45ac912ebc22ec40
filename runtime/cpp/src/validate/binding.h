// What binds a proof to its bundle: what eptx.json says, with the hash of every file.
#pragma once

#include <string>

#include "readers/formats/json.h"

namespace eptx::core {

// A check for everything that a bundle's proof is bound to, as the report has it; `wanted` is what the proof says and
// `found` the bundle's eptx.json. Throws where the proof is one of another bundle; `name` begins the error.
nlohmann::ordered_json CheckSame(const std::string& name, const Json& wanted, const Json& found);

}  // namespace eptx::core
