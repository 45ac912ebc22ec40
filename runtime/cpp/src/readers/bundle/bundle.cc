#include "readers/bundle/bundle.h"

#include <algorithm>
#include <system_error>
#include <utility>
#include <vector>

#include "readers/error.h"
#include "readers/formats/files.h"
#include "readers/formats/hash.h"
#include "readers/formats/json.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

constexpr char kConfigFile[] = "config.json";
constexpr size_t kModelLimit = INT32_MAX;  // of protocol buffers

// Whether a file may be in the folder without being listed: the manifest, and reports, finished or half written.
bool IsUnlisted(const std::string& name) {
  if (name == kManifestFile) return true;
  return std::any_of(std::begin(kReportFiles), std::end(kReportFiles),
                     [&](const std::string& report) { return name == report || name == "." + report + ".tmp"; });
}

void CheckFiles(const std::map<std::string, FileEntry>& listed, const std::map<std::string, uint64_t>& found) {
  for (const auto& [name, entry] : listed) {
    const auto file = found.find(name);
    if (file == found.end()) throw BundleError(name + ": missing; the bundle is incomplete");
    if (file->second != entry.size) {
      throw BundleError(name + ": has " + std::to_string(file->second) + " bytes; " + kManifestFile + " says " +
                        std::to_string(entry.size));
    }
  }
  for (const auto& [name, size] : found) {
    if (listed.count(name) == 0 && !IsUnlisted(name)) {
      throw BundleError(Repr(name) + ": not listed in " + kManifestFile + "; remove it or export again");
    }
  }
}

struct Listed {
  std::string name;
  FileEntry entry;
};

void CheckHashes(const std::string& folder, const std::vector<Listed>& files) {
  for (const auto& [name, entry] : files) {
    const FileHash hash = HashFile(folder + "/" + name);
    if (hash.size != entry.size || hash.sha256 != entry.sha256) {
      throw BundleError(name + ": its content does not match its SHA-256; the file was changed or damaged");
    }
  }
}

// Hashes on a thread of its own, or later on the caller's where no thread can be started.
std::future<void> StartHashing(const std::string& folder, std::vector<Listed> files) {
  const auto work = [folder, files = std::move(files)] { CheckHashes(folder, files); };
  try {
    return std::async(std::launch::async, work);
  } catch (const std::system_error&) {
    return std::async(std::launch::deferred, work);
  }
}

// Files that are parsed are hashed first. Weights are not parsed.
bool IsParsed(const std::string& name) {
  return EndsWith(name, ".onnx") || name == kConfigFile || name == kGenaiConfigFile;
}

// Adds what one model has.
void FindOperators(const OnnxScan& scan, Operators& found) {
  for (const auto& [domain, name] : scan.operators) {
    if (domain == kOperatorDomain) found.own.insert(name);
  }
  found.functions_are_own =
      found.functions_are_own && std::all_of(scan.functions.begin(), scan.functions.end(),
                                             [](const auto& function) { return function.first == kOperatorDomain; });
  if (scan.operators.count({"com.microsoft", "GroupQueryAttention"}) != 0) found.shares_cache = true;
}

void CheckFolder(const std::string& folder) {
  if (!IsFolder(folder)) {
    throw BundleError(OneLine(folder) + (Exists(folder) ? ": not a folder" : ": no such bundle"));
  }
  if (!Exists(folder + "/" + kManifestFile)) {
    throw BundleError(OneLine(folder) + ": not an eptx bundle: it has no " + kManifestFile);
  }
}

}  // namespace

std::optional<int64_t> ReadTokenTypes(std::string_view config, const std::string& name) {
  const Json value = ParseJson(config, name);
  if (!value.is_object()) throw BundleError(name + ": must hold a JSON object");
  const auto types = value.find("type_vocab_size");
  if (types == value.end() || !types->is_number_unsigned()) return {};
  const auto number = types->get<uint64_t>();
  if (number == 0 || number > static_cast<uint64_t>(INT64_MAX)) return {};
  return static_cast<int64_t>(number);
}

Bundle::Bundle(const std::string& path, bool verify) {
  CheckFolder(path);
  path_ = AbsolutePath(path);
  const auto found = ListFiles(path_);
  manifest_ = ParseManifest(ReadFile(path_ + "/" + kManifestFile, kJsonLimit));
  CheckFiles(manifest_.files, found);
  if (verify) {
    std::vector<Listed> now, later;
    for (const auto& [name, entry] : manifest_.files) (IsParsed(name) ? now : later).push_back({name, entry});
    hashing_ = StartHashing(path_, std::move(later));
    CheckHashes(path_, now);
  }
  if (manifest_.files.count(kGenaiConfigFile) != 0) {
    CheckGenaiConfig(ReadFile(path_ + "/" + kGenaiConfigFile, kJsonLimit));
  }
  for (const auto& [name, entry] : manifest_.files) {
    if (!EndsWith(name, ".onnx")) continue;
    const std::string model = ReadFile(path_ + "/" + name, kModelLimit);
    if (model.empty()) throw BundleError(name + ": not an ONNX model: the file is empty");
    const OnnxScan scan = ScanOnnx(model, name);
    CheckModel(name, scan, manifest_);
    FindOperators(scan, operators_);
  }
  if (manifest_.files.count(kConfigFile) != 0) {
    token_types_ = ReadTokenTypes(ReadFile(path_ + "/" + kConfigFile, kJsonLimit), kConfigFile);
  }
}

void Bundle::FinishVerifying() {
  if (hashing_.valid()) hashing_.get();
}

}  // namespace eptx::core
