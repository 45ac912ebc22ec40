#include "readers/formats/fields.h"

#include <algorithm>
#include <limits>

#include "readers/text.h"

namespace eptx::core {
namespace {

// A field's name, printable on one line.
std::string Short(const std::string& key) {
  if (key.size() <= 60 && IsPrintable(key)) return key;
  return Repr(key.substr(0, 60));
}

std::optional<int64_t> AsInteger(const Json& value) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(kMost)) return {};
  if (!value.is_number_integer()) return {};
  const auto number = value.get<int64_t>();
  if (number < -kMost) return {};
  return number;
}

}  // namespace

Fields::Fields(const Json& value, std::string where) : value_(&value), where_(std::move(where)) {
  if (!value.is_object()) throw Bad("must be a JSON object");
}

Error Fields::Bad(const std::string& problem) const { return BundleError(where_ + ": " + problem); }

void Fields::Done() const {
  for (const auto& field : value_->items()) {
    if (taken_.count(field.key()) == 0) throw Bad("unknown field " + Short(field.key()));
  }
}

bool Fields::Present(const std::string& key) {
  taken_.insert(key);
  const auto field = value_->find(key);
  return field != value_->end() && !field->is_null();
}

std::string Fields::String(const std::string& key) {
  const Json& value = Take(key);
  if (!value.is_string()) throw Bad(Short(key) + " must be a string");
  return value.get<std::string>();
}

std::string Fields::Name(const std::string& key) {
  std::string value = String(key);
  const bool is_word = value.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == value.npos;
  if (value.empty() || value[0] < 'a' || !is_word) throw Bad(Short(key) + " must be a name in lower case");
  return value;
}

std::string Fields::Choice(const std::string& key, const std::vector<std::string>& choices) {
  const Json& value = Take(key);
  if (!value.is_string() || std::count(choices.begin(), choices.end(), value.get_ref<const std::string&>()) == 0) {
    throw Bad(Short(key) + " must be one of " + Join(choices));
  }
  return value.get<std::string>();
}

int64_t Fields::Integer(const std::string& key, std::optional<int64_t> least) {
  const auto value = AsInteger(Take(key));
  if (!value || (least && *value < *least)) {
    throw Bad(Short(key) + " must be an integer" + (least ? " of at least " + std::to_string(*least) : ""));
  }
  return *value;
}

int64_t Fields::Count(const std::string& key, int64_t least) {
  const int64_t value = Integer(key, least);
  if (value >= kCounts) throw Bad(Short(key) + " must be an integer below " + std::to_string(kCounts));
  return value;
}

double Fields::Number(const std::string& key) {
  const Json& value = Take(key);
  if (!value.is_number()) throw Bad(Short(key) + " must be a number");
  return value.get<double>();
}

bool Fields::Boolean(const std::string& key) {
  const Json& value = Take(key);
  if (!value.is_boolean()) throw Bad(Short(key) + " must be true or false");
  return value.get<bool>();
}

const Json& Fields::Array(const std::string& key) {
  const Json& value = Take(key);
  if (!value.is_array()) throw Bad(Short(key) + " must be a list");
  return value;
}

std::vector<std::string> Fields::StringList(const std::string& key) {
  std::vector<std::string> result;
  for (const Json& value : Array(key)) {
    if (!value.is_string()) throw Bad(Short(key) + " must be a list of strings");
    result.push_back(value.get<std::string>());
  }
  return result;
}

const Json& Fields::Value(const std::string& key) { return Take(key); }

Fields Fields::Child(const std::string& key) { return MakeChild(key, Take(key)); }

std::vector<Fields> Fields::Children(const std::string& key) {
  std::vector<Fields> result;
  for (const Json& value : Array(key)) {
    result.push_back(MakeChild(key + "[" + std::to_string(result.size()) + "]", value));
  }
  return result;
}

std::vector<std::pair<std::string, Fields>> Fields::Items() {
  std::vector<std::pair<std::string, Fields>> result;
  for (const auto& field : value_->items()) {
    result.emplace_back(field.key(), MakeChild(Short(field.key()), Take(field.key())));
  }
  return result;
}

const Json& Fields::Take(const std::string& key) {
  taken_.insert(key);
  const auto field = value_->find(key);
  if (field == value_->end()) throw Bad(Short(key) + " is missing");
  return *field;
}

Fields Fields::MakeChild(const std::string& key, const Json& value) const {
  return Fields(value, where_.find(": ") == where_.npos ? where_ + ": " + key : where_ + "." + key);
}

}  // namespace eptx::core
