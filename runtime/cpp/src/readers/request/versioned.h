// Reads what callers hand over, as eptx.h says: structures of other versions, and arrays of any count.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "eptx.h"

namespace eptx::core {

// Throws where an array has elements and is NULL, or where it ends past the address space.
void CheckArray(const void* first, size_t count, size_t element_size, const std::string& name);

// How many bytes of a structure to read: at most `known`. Throws where a byte past `known` is not zero.
size_t KnownPart(const void* given, size_t known, const std::string& name);

// The same for every structure of an array.
size_t KnownPartOfAll(const void* first, size_t count, size_t known, const std::string& name);

// A structure in this library's version. Fields that an older caller does not have are zero.
template <typename T>
T Known(const T& given, const std::string& name) {
  T known{};
  std::memcpy(&known, &given, KnownPart(&given, sizeof known, name));
  known.size = sizeof known;
  return known;
}

// An array of structures in this library's version.
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

  // Copies the fields back to the caller's structures.
  void GiveBack() noexcept {
    for (size_t i = 0; i < items_.size(); ++i) {
      std::memcpy(reinterpret_cast<char*>(At(i)) + sizeof(size_t), reinterpret_cast<char*>(&items_[i]) + sizeof(size_t),
                  part_ - sizeof(size_t));
    }
  }

 private:
  // The caller's structures have the caller's size.
  T* At(size_t index) const {
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(first_) + index * first_->size);
  }

  T* first_;
  size_t part_;
  std::vector<Item> items_;
};

}  // namespace eptx::core
