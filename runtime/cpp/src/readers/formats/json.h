// Strict JSON, which refuses what other parsers let through.
//
// Refused: duplicate keys, NaN and infinities (also as 1e999), nesting of more than 900, lone surrogates, bytes that
// are not UTF-8, a second byte order mark, anything after the value.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace eptx::core {

using Json = nlohmann::json;

constexpr size_t kJsonLimit = 16u << 20;

// The value of a JSON text. `what` names the text; errors begin with it.
Json ParseJson(std::string_view text, const std::string& what);

}  // namespace eptx::core
