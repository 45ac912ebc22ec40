// genai_config.json, which ONNX Runtime GenAI reads where a bundle is opened without eptx.
#include <algorithm>
#include <cctype>

#include "readers/bundle/bundle.h"
#include "readers/error.h"
#include "readers/formats/json.h"

namespace eptx::core {
namespace {

constexpr std::string_view kRefused[] = {"custom_ops_library", "enable_profiling"};  // loads a library, writes a file

bool IsKnownProvider(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name == "cpu" || name == "cuda";
}

// Whether the value is a list of objects that name known providers. The options of others can name libraries.
bool IsKnown(const Json& options) {
  return options.is_array() && std::all_of(options.begin(), options.end(), [](const Json& entry) {
           if (!entry.is_object()) return false;
           const auto providers = entry.items();
           return std::all_of(providers.begin(), providers.end(),
                              [](const auto& provider) { return IsKnownProvider(provider.key()); });
         });
}

void CheckSetting(const std::string& key, const Json& value) {
  const std::string file = kGenaiConfigFile;
  if (std::count(std::begin(kRefused), std::end(kRefused), key) != 0) {
    throw BundleError(file + ": sets " + key + ", which a bundle must not");
  }
  if (key == "filename" && value != kModelFile) throw BundleError(file + ": names a model that is not " + kModelFile);
  if (key == "provider_options" && !IsKnown(value)) {
    throw BundleError(file + ": names an execution provider that is not one of cpu, cuda");
  }
}

}  // namespace

void CheckGenaiConfig(std::string_view text) {
  const Json config = ParseJson(text, kGenaiConfigFile);
  std::vector<const Json*> waiting = {&config};
  while (!waiting.empty()) {
    const Json& value = *waiting.back();
    waiting.pop_back();
    for (const auto& item : value.items()) {
      if (value.is_object()) CheckSetting(item.key(), item.value());
      if (item.value().is_structured()) waiting.push_back(&item.value());
    }
  }
}

}  // namespace eptx::core
