// Strict JSON: what parsers let through and a file format must not.
//
// Refused: duplicate keys, NaN and infinities (also as 1e999), nesting of more than 900, lone surrogates, bytes that
// are not UTF-8, a byte order mark, anything after the value, files larger than a limit.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace eptx::core {

using Json = nlohmann::json;

constexpr size_t kJsonLimit = 16u << 20;

// The value of a JSON text; `what` says which text it is and begins an error's line.
Json ParseJson(std::string_view text, const std::string& what);

}  // namespace eptx::core
