// Checks what a bundle's model may contain.
#include <algorithm>

#include "readers/bundle/bundle.h"
#include "readers/error.h"
#include "readers/formats/files.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

// ONNX Runtime implements these domains. CheckModel refuses com.microsoft's EPContext, which opens a file by name.
constexpr std::string_view kKnownDomains[] = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", kOperatorDomain};

std::string Versions(const std::set<int64_t>& versions) {
  if (versions.empty()) return "not at all";
  std::vector<std::string> parts;
  for (const int64_t version : versions) parts.push_back(std::to_string(version));
  return "version " + Join(parts);
}

void CheckDomains(const std::string& name, const OnnxScan& scan) {
  std::set<std::string> own, used;
  for (const auto& function : scan.functions) own.insert(function.first);
  for (const auto& opset : scan.opsets) used.insert(opset.first);
  for (const auto& operation : scan.operators) used.insert(operation.first);
  for (const std::string& domain : used) {
    const bool known = std::count(std::begin(kKnownDomains), std::end(kKnownDomains), domain) != 0;
    if (!known && own.count(domain) == 0) {
      throw BundleError(name + ": uses operators of the unknown domain " + Repr(domain));
    }
  }
}

void CheckExternal(const std::string& name, const OnnxScan& scan, const Manifest& manifest) {
  const size_t slash = name.rfind('/');
  const std::string folder = slash == name.npos ? "" : name.substr(0, slash + 1);
  for (const ExternalData& data : scan.external) {
    const auto file = manifest.files.find(folder + data.location);
    if (!IsContainedName(data.location) || file == manifest.files.end()) {
      throw BundleError(name + ": keeps weights in " + Repr(data.location) + ", which is not a file of the bundle");
    }
    const uint64_t size = file->second.size;
    if (data.offset > size || data.length.value_or(0) > size - data.offset) {
      throw BundleError(name + ": a weight lies past the end of " + file->first + " (" + std::to_string(size) +
                        " bytes)");
    }
  }
}

}  // namespace

void CheckModelPart(const std::string& name, const OnnxScan& scan, const Manifest& manifest) {
  CheckDomains(name, scan);
  if (scan.operators.count({"com.microsoft", "EPContext"}) != 0) {
    throw BundleError(name + ": uses EPContext, which opens files by name");
  }
  CheckExternal(name, scan, manifest);
}

void CheckModel(const std::string& name, const OnnxScan& scan, const Manifest& manifest) {
  CheckModelPart(name, scan, manifest);
  std::set<int64_t> versions, expected;
  for (const auto& [domain, version] : scan.opsets) {
    if (domain == kOperatorDomain) versions.insert(version);
  }
  if (manifest.operators) expected.insert(*manifest.operators);
  // one part of an encoder-decoder may have no adapter
  if (versions != expected && !(manifest.has_encoder && versions.empty())) {
    throw BundleError(name + ": imports " + kOperatorDomain + " " + Versions(versions) + "; " + kManifestFile +
                      " says " + Versions(expected));
  }
}

}  // namespace eptx::core
