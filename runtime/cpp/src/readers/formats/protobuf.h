// The protocol-buffer wire format, read field by field without trusting it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace eptx::core {

// The bytes are not a protocol-buffer message.
struct Damaged {
  std::string problem;
};

constexpr uint64_t kNumber = 0, kBytes = 2;  // wire types

// A field's number and wire type, and its integer or the bytes of its content.
struct Field {
  uint64_t number, wire;
  uint64_t integer;
  std::string_view content;
};

// Reads the fields of one message of a file.
class FieldReader {
 public:
  // `message` is a part of `file`. Errors give places in `file`.
  FieldReader(std::string_view file, std::string_view message);

  // The next field; false at the end. Throws Damaged.
  bool Next(Field& field);

 private:
  uint64_t Varint();
  std::string Place() const;

  const char* start_;
  const char* at_;
  const char* end_;
};

}  // namespace eptx::core
