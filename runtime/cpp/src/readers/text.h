// Text that may be hostile: checks it as UTF-8, and shows it on one printable line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace eptx::core {

// Whether the bytes are UTF-8: no overlong forms, no surrogates, nothing past U+10FFFF.
bool IsUtf8(std::string_view text);

// Whether every character of a UTF-8 text can be shown: no control characters, no invisible ones, no private use.
bool IsPrintable(std::string_view text);

// The text in quotes, with escapes for characters that cannot be shown, as Python's repr() does.
std::string Repr(std::string_view text);

// The first `limit` characters, with an ellipsis in place of the last three when there are more.
std::string Shorten(const std::string& text, size_t limit);

// A message of another library on one printable line of at most `limit` characters.
std::string OneLine(std::string_view text, size_t limit = 300);

// Whether a text could name a variable in Python. Every character past ASCII counts as a letter.
bool IsIdentifier(std::string_view text);

inline bool StartsWith(std::string_view text, std::string_view start) { return text.substr(0, start.size()) == start; }

inline bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

inline bool Contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

// The sizes of a shape, as "[2, 3]".
std::string ShapeText(const int64_t* shape, size_t rank);

std::string Join(const std::vector<std::string>& parts, std::string_view separator = ", ");

}  // namespace eptx::core
