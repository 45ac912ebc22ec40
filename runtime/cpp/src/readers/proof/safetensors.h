// The file that a proof is in: a safetensors file of one JSON object and some arrays.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "readers/formats/json.h"

namespace eptx::core {

// An array of the file, of little-endian numbers that are not aligned.
struct StoredTensor {
  std::string type;  // as the format names it: F64, I64, U8, ...
  std::vector<int64_t> shape;
  std::string_view bytes;  // as many as type and shape say

  size_t count() const;
};

struct Safetensors {
  std::string text;    // of the JSON object
  std::string digest;  // that the file says
  std::string_view data;
  std::map<std::string, StoredTensor> tensors;
};

// Reads a file, whose bytes must outlive the result. `name` begins errors.
Safetensors ReadSafetensors(std::string_view file, const std::string& name);

// Checks the digest, of the object's text and of all bytes behind the header.
void CheckDigest(const Safetensors& file, const std::string& name);

}  // namespace eptx::core
