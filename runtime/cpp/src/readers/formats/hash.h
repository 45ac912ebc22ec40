// SHA-256, which finds damage in a bundle's files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace eptx::core {

struct FileHash {
  uint64_t size;
  std::string sha256;  // 64 hexadecimal digits
};

// Size and hash of a regular file, read in blocks.
FileHash HashFile(const std::string& path);

// The hash of all these bytes, one part after the other, as 64 hexadecimal digits.
std::string HashBytes(const std::vector<std::string_view>& parts);

}  // namespace eptx::core
