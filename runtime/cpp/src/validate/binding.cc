#include "validate/binding.h"

#include <set>

#include "readers/error.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

constexpr char kFiles[] = "files";
// What no validation reads.
constexpr const char* kUnread[] = {"generator"};
constexpr char kUnreadFile[] = "README.md";
// A bundle that differs here is another one.
constexpr const char* kIdentity[] = {"fingerprints", "mode"};
constexpr char kChanged[] = "is not what was proved: it has changed since the proof was recorded";

// A field; null where there is none.
const Json& Get(const Json& object, const std::string& key) {
  static const Json none;
  if (!object.is_object()) return none;
  const auto found = object.find(key);
  return found == object.end() ? none : *found;
}

Json Bound(Json manifest) {
  for (const char* field : kUnread) manifest.erase(field);
  if (Get(manifest, kFiles).is_object()) manifest[kFiles].erase(kUnreadFile);
  return manifest;
}

void AddChecks(nlohmann::ordered_json& checks, const std::string& before, const Json& wanted, const Json& found,
               const std::string& except) {
  std::set<std::string> names;
  for (const Json* object : {&wanted, &found}) {
    for (const auto& item : object->items()) names.insert(item.key());
  }
  names.erase(except);
  for (const std::string& name : names) {
    const bool same = Get(found, name) == Get(wanted, name);
    checks.push_back({{"name", before + OneLine(name)},
                      {"how", "compared"},
                      {"wrong", same ? nlohmann::ordered_json() : nlohmann::ordered_json(kChanged)},
                      {"why", nullptr}});
  }
}

}  // namespace

nlohmann::ordered_json CheckSame(const std::string& name, const Json& wanted, const Json& found) {
  const Json bound = Bound(found);
  for (const char* field : kIdentity) {
    if (Get(bound, field) == Get(wanted, field)) continue;
    throw BundleError(name + ": is the proof of another bundle: its " + field +
                      " differs; record one of this bundle with eptx validate BUNDLE --record FILE");
  }
  auto checks = nlohmann::ordered_json::array();
  AddChecks(checks, "eptx.json ", wanted, bound, kFiles);
  const Json none = Json::object();
  const Json& files = Get(wanted, kFiles);
  AddChecks(checks, "", files.is_object() ? files : none, Get(bound, kFiles), "");
  return checks;
}

}  // namespace eptx::core
