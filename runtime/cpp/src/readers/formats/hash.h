// SHA-256, which finds damage in a bundle's files.
#pragma once

#include <cstdint>
#include <string>

namespace eptx::core {

struct FileHash {
  uint64_t size;
  std::string sha256;  // 64 hexadecimal digits
};

// Size and hash of a regular file, read in blocks.
FileHash HashFile(const std::string& path);

}  // namespace eptx::core
