#include "readers/text.h"

#include <algorithm>
#include <cstdio>

namespace eptx::core {
namespace {

constexpr uint32_t kInvalid = 0xFFFFFFFF;

struct Range {
  uint32_t first, last;
};

// Unicode categories Cc, Cf, Zs (but the space), Zl, Zp, Cs and Co, and the noncharacters. Python
// also refuses unassigned characters, which change with its releases; a bundle must not depend on them.
constexpr Range kHidden[] = {
    {0x0, 0x1F},        {0x7F, 0xA0},        {0xAD, 0xAD},       {0x600, 0x605},     {0x61C, 0x61C},
    {0x6DD, 0x6DD},     {0x70F, 0x70F},      {0x890, 0x891},     {0x8E2, 0x8E2},     {0x1680, 0x1680},
    {0x180E, 0x180E},   {0x2000, 0x200F},    {0x2028, 0x202F},   {0x205F, 0x2064},   {0x2066, 0x206F},
    {0x3000, 0x3000},   {0xD800, 0xF8FF},    {0xFDD0, 0xFDEF},   {0xFEFF, 0xFEFF},   {0xFFF9, 0xFFFB},
    {0xFFFE, 0xFFFF},   {0x110BD, 0x110BD},  {0x110CD, 0x110CD}, {0x13430, 0x13438}, {0x1BCA0, 0x1BCA3},
    {0x1D173, 0x1D17A}, {0x1FFFE, 0x1FFFF},  {0x2FFFE, 0x2FFFF}, {0x3FFFE, 0x3FFFF}, {0x4FFFE, 0x4FFFF},
    {0x5FFFE, 0x5FFFF}, {0x6FFFE, 0x6FFFF},  {0x7FFFE, 0x7FFFF}, {0x8FFFE, 0x8FFFF}, {0x9FFFE, 0x9FFFF},
    {0xAFFFE, 0xAFFFF}, {0xBFFFE, 0xBFFFF},  {0xCFFFE, 0xCFFFF}, {0xDFFFE, 0xDFFFF}, {0xE0001, 0xE0001},
    {0xE0020, 0xE007F}, {0xEFFFE, 0x10FFFF},
};

bool IsShown(uint32_t c) {
  if (c >= 0x20 && c < 0x7F) return true;
  const auto* end = std::end(kHidden);
  const auto* range = std::lower_bound(std::begin(kHidden), end, c, [](Range r, uint32_t v) { return r.last < v; });
  return range == end || c < range->first;
}

// The character at `at`, which moves past it; kInvalid, past one byte, where the bytes are not UTF-8.
uint32_t Next(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  if (lead < 0x80) return text[at++];
  const size_t length = lead >= 0xF0 && lead < 0xF5   ? 4
                        : lead >= 0xE0 && lead < 0xF0 ? 3
                        : lead >= 0xC2 && lead < 0xE0 ? 2
                                                      : 0;
  if (length == 0 || text.size() - at < length) {
    ++at;
    return kInvalid;
  }
  uint32_t value = lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) {
      ++at;
      return kInvalid;
    }
    value = value << 6 | (byte(at + i) & 0x3Fu);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < kLeast[length] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
    ++at;
    return kInvalid;
  }
  at += length;
  return value;
}

std::string Escape(uint32_t c) {
  char buffer[16];
  if (c == '\n') return "\\n";
  if (c == '\r') return "\\r";
  if (c == '\t') return "\\t";
  const char* format = c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x";
  std::snprintf(buffer, sizeof buffer, format, static_cast<unsigned>(c));
  return buffer;
}

}  // namespace

bool IsUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
    } else if (Next(text, at) == kInvalid) {
      return false;
    }
  }
  return true;
}

bool IsPrintable(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const uint32_t c = Next(text, at);
    if (c == kInvalid || !IsShown(c)) return false;
  }
  return true;
}

std::string Repr(std::string_view text) {
  const bool has_single = text.find('\'') != text.npos, has_double = text.find('"') != text.npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string result(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const uint32_t c = Next(text, at);
    if (c == kInvalid) {
      result += Escape(0xDC00u + static_cast<unsigned char>(text[start]));  // as Python shows file names
    } else if (c == static_cast<uint32_t>(quote) || c == '\\') {
      result += {'\\', static_cast<char>(c)};
    } else if (IsShown(c)) {
      result.append(text, start, at - start);
    } else {
      result += Escape(c);
    }
  }
  return result + quote;
}

std::string Shorten(const std::string& text, size_t limit) {
  size_t cut = text.size(), count = 0;
  for (size_t at = 0; at < text.size(); ++count) {
    if (count == limit - 3) cut = at;
    Next(text, at);
  }
  return count <= limit ? text : text.substr(0, cut) + "...";
}

std::string OneLine(std::string_view text, size_t limit) {
  std::string result;
  bool gap = false;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const uint32_t c = Next(text, at);
    if (c == kInvalid || c == ' ' || !IsShown(c)) {
      gap = !result.empty();
      continue;
    }
    if (gap) result += ' ';
    gap = false;
    result.append(text, start, at - start);
  }
  return Shorten(result.empty() ? "unknown error" : result, limit);
}

bool IsIdentifier(std::string_view text) {
  const auto letter = [](unsigned char c) {
    return c == '_' || c >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  const auto digit = [](unsigned char c) { return c >= '0' && c <= '9'; };
  return !text.empty() && letter(text[0]) &&
         std::all_of(text.begin(), text.end(), [&](unsigned char c) { return letter(c) || digit(c); });
}

std::string ShapeText(const int64_t* shape, size_t rank) {
  std::vector<std::string> sizes;
  for (size_t axis = 0; axis < rank; ++axis) sizes.push_back(std::to_string(shape[axis]));
  return "[" + Join(sizes) + "]";
}

std::string Join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string result;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i != 0) result += separator;
    result += parts[i];
  }
  return result;
}

}  // namespace eptx::core
