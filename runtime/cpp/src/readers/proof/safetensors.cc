#include "readers/proof/safetensors.h"

#include <cstring>

#include "readers/error.h"
#include "readers/formats/fields.h"
#include "readers/formats/hash.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

constexpr char kMetadata[] = "__metadata__";
constexpr size_t kLength = 8;  // bytes of the header's own size

constexpr struct {
  const char* name;
  size_t size;
} kTypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"I64", 8}, {"I32", 4}, {"U8", 1}, {"BOOL", 1}};

size_t SizeOf(std::string_view type) {
  for (const auto& known : kTypes) {
    if (type == known.name) return known.size;
  }
  return 0;
}

// The product of a shape and `size`; SIZE_MAX where it is larger than any file.
size_t Bytes(const std::vector<int64_t>& shape, size_t size) {
  for (const int64_t dimension : shape) {
    if (dimension == 0) return 0;
  }
  for (const int64_t dimension : shape) {
    if (size > (size_t{1} << 48) / static_cast<size_t>(dimension)) return SIZE_MAX;
    size *= static_cast<size_t>(dimension);
  }
  return size;
}

StoredTensor ReadTensor(Fields f, std::string_view data) {
  StoredTensor tensor;
  tensor.type = f.String("dtype");
  const Json& shape = f.Array("shape");
  const Json& offsets = f.Array("data_offsets");
  f.Done();
  const auto sizes = [](const Json& list) { return std::all_of(list.begin(), list.end(), IsCount); };
  if (SizeOf(tensor.type) == 0 || !sizes(shape) || !sizes(offsets) || offsets.size() != 2) {
    throw f.Bad("damaged: no tensor can be read");
  }
  for (const Json& size : shape) tensor.shape.push_back(size.get<int64_t>());
  const auto start = offsets[0].get<size_t>(), end = offsets[1].get<size_t>();
  if (start > end || end > data.size() || end - start != Bytes(tensor.shape, SizeOf(tensor.type))) {
    throw f.Bad("damaged: no tensor can be read");
  }
  tensor.bytes = data.substr(start, end - start);
  return tensor;
}

}  // namespace

size_t StoredTensor::count() const { return bytes.size() / SizeOf(type); }

Safetensors ReadSafetensors(std::string_view file, const std::string& name) {
  uint64_t size = 0;
  for (size_t i = 0; i < kLength && i < file.size(); ++i) {
    size |= static_cast<uint64_t>(static_cast<unsigned char>(file[i])) << (8 * i);
  }
  if (file.size() < kLength || size > file.size() - kLength) {
    throw BundleError(name + ": not a proof: it is no safetensors file");
  }
  if (size > kJsonLimit)
    throw BundleError(name + ": its header is larger than " + std::to_string(kJsonLimit) + " bytes");
  Safetensors result;
  result.data = file.substr(kLength + size);
  const Json header = ParseJson(file.substr(kLength, size), name);
  const auto metadata = header.is_object() ? header.find(kMetadata) : header.end();
  const auto text = [&](const char* key) -> const std::string* {
    if (metadata == header.end() || !metadata->is_object()) return nullptr;
    const auto found = metadata->find(key);
    return found == metadata->end() ? nullptr : found->get_ptr<const std::string*>();
  };
  if (text("eptx_proof") == nullptr) {
    throw BundleError(name + ": not a proof of eptx; write one with eptx validate BUNDLE --record FILE");
  }
  result.text = *text("eptx_proof");
  if (text("sha256") != nullptr) result.digest = *text("sha256");
  for (const auto& field : header.items()) {
    if (field.key() == kMetadata) continue;
    result.tensors.emplace(
        field.key(), ReadTensor(Fields(field.value(), name + ": " + Shorten(Repr(field.key()), 60)), result.data));
  }
  return result;
}

void CheckDigest(const Safetensors& file, const std::string& name) {
  if (HashBytes({file.text, file.data}) != file.digest) {
    throw BundleError(name + ": damaged: its digest is another; copy it again");
  }
}

}  // namespace eptx::core
