#include "protobuf.h"

namespace eptx::core {
namespace {

constexpr uint64_t kNumberLimit = 1u << 29;
constexpr const char* kCut = "it ends inside a number";

}  // namespace

FieldReader::FieldReader(std::string_view file, std::string_view message)
    : start_(file.data()), at_(message.data()), end_(message.data() + message.size()) {}

bool FieldReader::Next(Field& field) {
  while (at_ != end_) {
    const uint64_t tag = Varint();
    const uint64_t wire = tag & 7;
    field = {tag >> 3, wire == 0, 0, {}};
    if (field.number == 0 || field.number >= kNumberLimit) {
      throw Damaged{"field number " + std::to_string(field.number) + Place()};
    }
    if (wire == 0) {
      field.integer = Varint();
      return true;
    }
    if (wire == 2) {
      const uint64_t size = Varint();
      if (size > static_cast<uint64_t>(end_ - at_)) throw Damaged{"the content" + Place() + " ends past its message"};
      field.content = {at_, static_cast<size_t>(size)};
      at_ += size;
      return true;
    }
    if (wire != 1 && wire != 5) throw Damaged{"wire type " + std::to_string(wire) + Place()};
    const int width = wire == 1 ? 8 : 4;
    if (width > end_ - at_) throw Damaged{kCut};
    at_ += width;
  }
  return false;
}

uint64_t FieldReader::Varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    if (at_ == end_) throw Damaged{kCut};
    const auto byte = static_cast<unsigned char>(*at_++);
    value |= shift < 64 ? static_cast<uint64_t>(byte & 0x7F) << shift : 0;
    if (byte < 0x80) return value;
  }
  throw Damaged{"a number of more than 10 bytes" + Place()};
}

std::string FieldReader::Place() const { return " at byte " + std::to_string(at_ - start_); }

}  // namespace eptx::core
