// What a quantized bundle loses, as it was measured where the proof was recorded.
#pragma once

#include <optional>
#include <string>

#include "readers/formats/json.h"

namespace eptx::core {

// Whether a drop keeps to its budget; none without a budget and without labels. And the drop in words.
std::optional<bool> DropIsWithin(const Json& one);
std::string DropSentence(const Json& one);

// The same of a divergence, which always has a limit.
bool DivergenceIsWithin(const Json& one);
std::string DivergenceSentence(const Json& one);

}  // namespace eptx::core
