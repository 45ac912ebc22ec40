#include "mutate.h"

#include <nlohmann/json.hpp>
#include <vector>

namespace eptx::fuzz {
namespace {

using Json = nlohmann::json;

size_t Below(Random& random, size_t limit) { return limit == 0 ? 0 : static_cast<size_t>(random() % limit); }

const std::string& Word(Random& random) {
  static const std::vector<std::string> words = {"{",
                                                 "}",
                                                 "[",
                                                 "]",
                                                 ",",
                                                 ":",
                                                 "\"",
                                                 "null",
                                                 "true",
                                                 "NaN",
                                                 "-Infinity",
                                                 "1e999",
                                                 "-0",
                                                 "9223372036854775808",
                                                 "99999999999999999999999999",
                                                 "0.5",
                                                 "\"\\ud800\"",
                                                 "\"\\u0000\"",
                                                 "\\",
                                                 "\xff",
                                                 "\xed\xa0\x80",
                                                 "\xf4\x90\x80\x80",
                                                 std::string(1, '\0'),
                                                 "../x",
                                                 "/etc/passwd",
                                                 "model.onnx",
                                                 "task_id",
                                                 "base",
                                                 "auto",
                                                 "location",
                                                 "offset",
                                                 "length",
                                                 "ai.eptx",
                                                 "com.microsoft",
                                                 "EPContext",
                                                 "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                                                 "\x80\x80\x80\x80"};
  return words[Below(random, words.size())];
}

Json AnyValue(Random& random, int depth = 0) {
  switch (Below(random, depth > 2 ? 9 : 11)) {
    case 0:
      return nullptr;
    case 1:
      return random() % 2 == 0;
    case 2:
      return static_cast<int64_t>(random());
    case 3:
      return random();
    case 4:
      return static_cast<int64_t>(Below(random, 6)) - 2;
    case 5:
      return 0.25 * static_cast<double>(Below(random, 100));
    case 6:
      return "batch";
    case 7:
      return "x\n\x1b";
    case 8:
      return std::string(Below(random, 70), 'a');
    case 9:
      return Json::array({AnyValue(random, depth + 1), AnyValue(random, depth + 1)});
    default:
      return Json{{"name", AnyValue(random, depth + 1)}, {"size", AnyValue(random, depth + 1)}};
  }
}

// A value and all values inside it.
void Collect(Json& value, std::vector<Json*>& places) {
  places.push_back(&value);
  for (Json& inner : value) {
    if (value.is_structured()) Collect(inner, places);
  }
}

void ChangeObject(Json& object, Random& random) {
  auto field = object.begin();
  std::advance(field, static_cast<std::ptrdiff_t>(Below(random, object.size())));
  const std::string key = field.key();
  Json value = std::move(field.value());
  object.erase(key);
  if (random() % 2 == 0) object[random() % 2 == 0 ? key + "x" : "../" + key] = std::move(value);
}

std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7F) | 0x80);
  return bytes + static_cast<char>(value);
}

bool ReadVarint(const std::string& data, size_t& at, size_t end, uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64 && at < end; shift += 7) {
    const auto byte = static_cast<unsigned char>(data[at++]);
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

struct Span {
  size_t tag, content, end;
  uint64_t number, wire;
};

// The fields of a message; none where the bytes are not a message.
std::vector<Span> Fields(const std::string& data, size_t at, size_t end) {
  std::vector<Span> fields;
  while (at < end) {
    Span span{at, 0, 0, 0, 0};
    uint64_t tag = 0, value = 0;
    if (!ReadVarint(data, at, end, tag)) return {};
    span.number = tag >> 3;
    span.wire = tag & 7;
    if (span.wire == 0) {
      span.content = at;
      if (!ReadVarint(data, at, end, value)) return {};
    } else if (span.wire == 2) {
      if (!ReadVarint(data, at, end, value) || value > end - at) return {};
      span.content = at;
      at += value;
    } else if (span.wire == 1 || span.wire == 5) {
      span.content = at;
      at += span.wire == 1 ? 8 : 4;
      if (at > end) return {};
    } else {
      return {};
    }
    span.end = at;
    fields.push_back(span);
  }
  return fields;
}

std::string ChangedField(const std::string& content, const Span& span, Random& random) {
  const std::string tag = Varint(span.number << 3 | span.wire);
  switch (Below(random, 8)) {
    case 0:
      return {};
    case 1:
      return Varint(random()) + content;
    case 2:
      return Varint((1 + Below(random, 30)) << 3 | 2) + Varint(content.size()) + content;
    case 3:
      return tag + Varint(random() >> Below(random, 64)) + content;
    case 4:
      return tag + Varint(content.size() + Below(random, 3)) + content;
    case 5:
      return Varint(span.number << 3) + Varint(random());
    case 6: {
      const std::string& word = Word(random);
      return tag + Varint(word.size()) + word;
    }
    default: {
      std::string all = tag + Varint(content.size()) + content;
      return all + all;
    }
  }
}

// Changes one field at a random depth, and corrects the lengths of the messages around it.
std::string Rewrite(const std::string& data, Random& random, int depth) {
  const std::vector<Span> fields = Fields(data, 0, data.size());
  if (fields.empty()) return MutateBytes(data, random);
  const Span& span = fields[Below(random, fields.size())];
  const std::string content = data.substr(span.content, span.end - span.content);
  std::string changed;
  if (span.wire == 2 && depth < 12 && !content.empty() && random() % 4 != 0) {
    const std::string inner = Rewrite(content, random, depth + 1);
    changed = Varint(span.number << 3 | 2) + Varint(inner.size()) + inner;
  } else {
    changed = ChangedField(content, span, random);
  }
  return data.substr(0, span.tag) + changed + data.substr(span.end);
}

}  // namespace

std::string MutateBytes(const std::string& original, Random& random) {
  std::string data = original;
  for (size_t i = 0, count = 1 + Below(random, 4); i < count; ++i) {
    const size_t at = Below(random, data.size()), size = Below(random, 64);
    switch (Below(random, 7)) {
      case 0:
        if (!data.empty()) data[at] = static_cast<char>(data[at] ^ (1 << Below(random, 8)));
        break;
      case 1:
        if (!data.empty()) data[at] = static_cast<char>(random());
        break;
      case 2:
        data.resize(at);
        break;
      case 3:
        data.erase(at, size);
        break;
      case 4:
        data.insert(at, data.substr(Below(random, data.size()), size));
        break;
      case 5:
        data.insert(at, Word(random));
        break;
      default: {
        std::string repeated;
        for (size_t n = Below(random, 2000); n > 0; --n) repeated += "[{"[n % 2];
        data.insert(at, Below(random, 8) == 0 ? repeated : std::string(size, data.empty() ? 'x' : data[at]));
      }
    }
  }
  return data;
}

std::string MutateJson(const std::string& original, Random& random) {
  Json value = Json::parse(original, nullptr, false);
  if (value.is_discarded()) return MutateBytes(original, random);
  for (size_t i = 0, count = 1 + Below(random, 2); i < count; ++i) {
    std::vector<Json*> places;
    Collect(value, places);
    Json& place = *places[Below(random, places.size())];
    if (place.is_object() && !place.empty() && random() % 2 == 0) {
      ChangeObject(place, random);
    } else if (place.is_array() && random() % 2 == 0) {
      place.push_back(place.empty() ? AnyValue(random) : Json(place[0]));
    } else {
      place = AnyValue(random);
    }
  }
  return value.dump();
}

std::string MutateMessage(const std::string& original, Random& random) { return Rewrite(original, random, 0); }

}  // namespace eptx::fuzz
