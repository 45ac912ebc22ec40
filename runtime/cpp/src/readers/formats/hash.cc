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

}  // namespace

FileHash HashFile(const std::string& path) {
  SHA256_CTX context;
  bool sound = SHA256_Init(&context) == 1;
  const Descriptor file = OpenRegular(path);
  std::vector<unsigned char> block(kBlock);
  FileHash result{0, {}};
  while (const size_t got = ReadSome(file, block.data(), block.size(), path)) {
    sound = sound && SHA256_Update(&context, block.data(), got) == 1;
    result.size += got;
  }
  unsigned char digest[SHA256_DIGEST_LENGTH];
  sound = sound && SHA256_Final(digest, &context) == 1;
  if (!sound) throw Error(EPTX_INTERNAL, "OpenSSL cannot compute SHA-256");
  for (const unsigned char byte : digest) {
    result.sha256 += "0123456789abcdef"[byte >> 4];
    result.sha256 += "0123456789abcdef"[byte & 15];
  }
  return result;
}

}  // namespace eptx::core
