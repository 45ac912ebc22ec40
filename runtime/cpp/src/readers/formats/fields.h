// Typed access to a JSON object, with errors that name the field.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "readers/error.h"
#include "readers/formats/json.h"

namespace eptx::core {

// Sizes, counts and tokens are below this limit: graphs, tokenizers and GenAI use 32 bits.
constexpr int64_t kCounts = int64_t{1} << 31;

inline bool IsCount(const Json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() < static_cast<uint64_t>(kCounts);
}

// A JSON object whose fields are read one by one. `Done` refuses fields that nobody read. The value must outlive it.
class Fields {
 public:
  // `where`: the file and field of the object. Errors begin with it.
  Fields(const Json& value, std::string where);

  Error Bad(const std::string& problem) const;
  void Done() const;

  // Whether the field is there and not null. The field counts as read.
  bool Present(const std::string& key);

  std::string String(const std::string& key);
  std::string Name(const std::string& key);  // a word of lower-case letters, digits and underscores
  std::string Choice(const std::string& key, const std::vector<std::string>& choices);
  int64_t Integer(const std::string& key, std::optional<int64_t> least = {});
  int64_t Count(const std::string& key, int64_t least = 0);  // a size, a number of things, or an index
  double Number(const std::string& key);
  bool Boolean(const std::string& key);
  const Json& Array(const std::string& key);
  std::vector<std::string> StringList(const std::string& key);
  const Json& Value(const std::string& key);  // of any type
  Fields Child(const std::string& key);
  std::vector<Fields> Children(const std::string& key);
  std::vector<std::pair<std::string, Fields>> Items();  // all fields, each of which must be an object

 private:
  const Json& Take(const std::string& key);
  Fields MakeChild(const std::string& key, const Json& value) const;

  const Json* value_;
  std::string where_;
  std::set<std::string> taken_;
};

}  // namespace eptx::core
