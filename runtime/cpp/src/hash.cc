#include "hash.h"

#include <openssl/evp.h>

#include <memory>
#include <new>
#include <vector>

#include "error.h"
#include "files.h"

namespace eptx::core {
namespace {

constexpr size_t kBlock = 256 << 10;  // fits the cache between being read and being hashed

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

void Require(int ok) {
  if (ok != 1) throw Error(EPTX_INTERNAL, "OpenSSL cannot compute SHA-256");
}

}  // namespace

FileHash HashFile(const std::string& path) {
  const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  if (!context) throw std::bad_alloc();
  Require(EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr));
  const Descriptor file = OpenRegular(path);
  std::vector<unsigned char> block(kBlock);
  FileHash result{0, {}};
  while (const size_t got = ReadSome(file, block.data(), block.size(), path)) {
    Require(EVP_DigestUpdate(context.get(), block.data(), got));
    result.size += got;
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  Require(EVP_DigestFinal_ex(context.get(), digest, &length));
  for (unsigned int i = 0; i < length; ++i) {
    result.sha256 += "0123456789abcdef"[digest[i] >> 4];
    result.sha256 += "0123456789abcdef"[digest[i] & 15];
  }
  return result;
}

}  // namespace eptx::core
