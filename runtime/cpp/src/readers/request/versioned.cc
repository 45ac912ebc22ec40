#include "readers/request/versioned.h"

#include <cstdint>

#include "readers/error.h"

namespace eptx::core {
namespace {

constexpr size_t kLargest = 4096;                // bytes of a structure, of any version
constexpr size_t kMostItems = 4096;              // in an array; no model has as many inputs or outputs
constexpr size_t kStep = alignof(eptx_request);  // sizes are multiples of it, so that no field is cut in two

size_t SizeOf(const void* structure) {
  size_t size = 0;
  std::memcpy(&size, structure, sizeof size);
  return size;
}

}  // namespace

void CheckArray(const void* first, size_t count, size_t element_size, const std::string& name) {
  if (count == 0) return;
  if (first == nullptr) throw UsageError(name + " is NULL");
  size_t bytes = 0;
  uintptr_t end = 0;
  if (__builtin_mul_overflow(count, element_size, &bytes) || bytes > size_t{PTRDIFF_MAX} ||
      __builtin_add_overflow(reinterpret_cast<uintptr_t>(first), bytes, &end)) {
    throw UsageError(name + " cannot have " + std::to_string(count) + " elements: they do not fit into memory");
  }
}

size_t KnownPart(const void* given, size_t known, const std::string& name) {
  const size_t size = SizeOf(given);
  if (size < sizeof size || size > kLargest || size % kStep != 0) {
    throw UsageError(name + ".size is " + std::to_string(size) + "; EPTX_INIT sets it to the size of the structure");
  }
  const auto* const bytes = static_cast<const unsigned char*>(given);
  for (size_t i = known; i < size; ++i) {
    if (bytes[i] != 0) throw NotSupportedError(name + " asks for something that this libeptx does not know");
  }
  return std::min(size, known);
}

size_t KnownPartOfAll(const void* first, size_t count, size_t known, const std::string& name) {
  if (count == 0) return 0;
  CheckArray(first, count, kLargest, name);
  if (count > kMostItems) {
    throw UsageError(name + " has " + std::to_string(count) + " elements; at most " + std::to_string(kMostItems) +
                     " are allowed");
  }
  const size_t size = SizeOf(first), part = KnownPart(first, known, name + "[0]");
  for (size_t i = 1; i < count; ++i) {
    const std::string element = name + "[" + std::to_string(i) + "]";
    const void* const given = static_cast<const char*>(first) + i * size;
    if (SizeOf(given) != size) {
      throw UsageError(element + ".size is " + std::to_string(SizeOf(given)) + "; the first has " +
                       std::to_string(size));
    }
    KnownPart(given, known, element);
  }
  return part;
}

}  // namespace eptx::core
