#include "readers/formats/protobuf.h"

namespace eptx::core {
namespace {

constexpr uint64_t kNumberLimit = 1u << 29;
constexpr const char* kCut = "it ends inside a number";

}  // namespace

FieldReader::FieldReader(std::string_view file, std::string_view message)
    : start_(file.data()), at_(message.data()), end_(message.data() + message.size()) {}

bool FieldReader::Next(Field& field) {
  if (at_ == end_) return false;
  const uint64_t tag = Varint();
  field = {tag >> 3, tag & 7, 0, {}};
  if (field.number == 0 || field.number >= kNumberLimit) {
    throw Damaged{"field number " + std::to_string(field.number) + Place()};
  }
  if (field.wire == kNumber) {
    field.integer = Varint();
    return true;
  }
  uint64_t size = field.wire == 1 ? 8 : 4;
  if (field.wire == kBytes) {
    size = Varint();
    if (size > static_cast<uint64_t>(end_ - at_)) throw Damaged{"the content" + Place() + " ends past its message"};
  } else if (field.wire != 1 && field.wire != 5) {
    throw Damaged{"wire type " + std::to_string(field.wire) + Place()};
  } else if (size > static_cast<uint64_t>(end_ - at_)) {
    throw Damaged{kCut};
  }
  field.content = {at_, static_cast<size_t>(size)};
  at_ += size;
  return true;
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
