#include "readers/formats/hash.h"

// OpenSSL's interface to this algorithm. EVP would load the table of all algorithms, 3 MB for every process.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

#include <vector>

#include "readers/error.h"
#include "readers/formats/files.h"

namespace eptx::core {
namespace {

constexpr size_t kBlock = 256 << 10;  // stays in the processor's cache between read and hash

// A hash that grows with what is added to it.
class Hash {
 public:
  void Add(const void* data, size_t size) { sound_ = sound_ && SHA256_Update(&context_, data, size) == 1; }

  // 64 hexadecimal digits.
  std::string Digits() {
    unsigned char digest[SHA256_DIGEST_LENGTH];
    sound_ = sound_ && SHA256_Final(digest, &context_) == 1;
    if (!sound_) throw Error(EPTX_INTERNAL, "OpenSSL cannot compute SHA-256");
    std::string digits;
    for (const unsigned char byte : digest) {
      digits += "0123456789abcdef"[byte >> 4];
      digits += "0123456789abcdef"[byte & 15];
    }
    return digits;
  }

 private:
  SHA256_CTX context_;
  bool sound_ = SHA256_Init(&context_) == 1;
};

}  // namespace

FileHash HashFile(const std::string& path) {
  Hash hash;
  const Descriptor file = OpenRegular(path);
  std::vector<unsigned char> block(kBlock);
  FileHash result{0, {}};
  while (const size_t got = ReadSome(file, block.data(), block.size(), path)) {
    hash.Add(block.data(), got);
    result.size += got;
  }
  result.sha256 = hash.Digits();
  return result;
}

std::string HashBytes(const std::vector<std::string_view>& parts) {
  Hash hash;
  for (const std::string_view part : parts) hash.Add(part.data(), part.size());
  return hash.Digits();
}

}  // namespace eptx::core
