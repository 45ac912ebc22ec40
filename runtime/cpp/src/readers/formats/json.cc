#include "readers/formats/json.h"

#include <vector>

#include "readers/error.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

constexpr size_t kDepthLimit = 900;  // Python's reader stops near 1000

// Builds the value while the parser reads, so that it can refuse a key or a depth where it occurs.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Json Take() { return std::move(root_); }
  const std::string& problem() const { return problem_; }

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t&) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t&) override { return Refuse("not valid JSON: binary data"); }
  bool start_object(std::size_t) override { return Open(Json::object()); }
  bool start_array(std::size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    if (open_.back()->contains(name)) {
      return Refuse("not valid JSON: the key " + Shorten(Repr(name), 60) + " appears twice");
    }
    slot_ = &(*open_.back())[name];
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    const std::string_view message = error.what();
    const size_t start = message.find("] ");  // after "[json.exception.parse_error.101] "
    return Refuse("not valid JSON: " + OneLine(start == message.npos ? message : message.substr(start + 2)));
  }

 private:
  bool Refuse(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  Json* Place(Json&& value) {
    Json* place = &root_;
    if (!open_.empty()) {
      place = open_.back()->is_array() ? &open_.back()->emplace_back(nullptr) : slot_;
    }
    *place = std::move(value);
    return place;
  }

  bool Add(Json&& value) {
    Place(std::move(value));
    return true;
  }

  bool Open(Json&& value) {
    if (open_.size() >= kDepthLimit) return Refuse("nested too deeply");
    open_.push_back(Place(std::move(value)));  // keeps its place: its parent does not grow while it is open
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  Json root_;
  std::vector<Json*> open_;
  Json* slot_ = nullptr;
  std::string problem_;
};

}  // namespace

Json ParseJson(std::string_view text, const std::string& what) {
  if (!IsUtf8(text)) throw BundleError(what + ": not UTF-8 text");
  constexpr std::string_view kMark = "\xEF\xBB\xBF";  // a byte order mark, which a reader may skip (RFC 8259)
  if (text.substr(0, 3) == kMark) text.remove_prefix(3);
  // the parser would skip a second mark, and would stop at a zero byte
  if (text.substr(0, 3) == kMark || text.find('\0') != text.npos) {
    throw BundleError(what + ": not valid JSON: a byte order mark or zero byte");
  }
  Builder builder;
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) throw BundleError(what + ": " + builder.problem());
  return builder.Take();
}

}  // namespace eptx::core
