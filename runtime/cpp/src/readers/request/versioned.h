// What callers hand over, read as eptx.h says: structures of another version, and arrays of any count.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "eptx.h"

namespace eptx::core {

// Throws where an array is NULL though it has elements, or is larger than memory.
void CheckArray(const void* first, size_t count, size_t element_size, const std::string& name);

// The part of a structure that is to be read: its own size, or `known` where it is larger and zero from there on.
size_t KnownPart(const void* given, size_t known, const std::string& name);

// The same of every structure in an array.
size_t KnownPartOfAll(const void* first, size_t count, size_t known, const std::string& name);

// A structure as this library has it: what an older caller does not know is zero.
template <typename T>
T Known(const T& given, const std::string& name) {
  T known{};
  std::memcpy(&known, &given, KnownPart(&given, sizeof known, name));
  known.size = sizeof known;
  return known;
}

// An array of structures as this library has them.
template <typename T>
class KnownArray {
 public:
  using Item = std::remove_const_t<T>;

  KnownArray(T* first, size_t count, const std::string& name)
      : first_(first), part_(KnownPartOfAll(first, count, sizeof(T), name)), items_(count) {
    for (size_t i = 0; i < count; ++i) {
      std::memcpy(&items_[i], At(i), part_);
      items_[i].size = sizeof(T);
    }
  }

  std::vector<Item>& items() { return items_; }

  // Copies what the library has set to where the caller has it.
  void GiveBack() noexcept {
    for (size_t i = 0; i < items_.size(); ++i) {
      std::memcpy(reinterpret_cast<char*>(At(i)) + sizeof(size_t), reinterpret_cast<char*>(&items_[i]) + sizeof(size_t),
                  part_ - sizeof(size_t));
    }
  }

 private:
  // The caller's structures are as far apart as they are large.
  T* At(size_t index) const {
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(first_) + index * first_->size);
  }

  T* first_;
  size_t part_;
  std::vector<Item> items_;
};

}  // namespace eptx::core
