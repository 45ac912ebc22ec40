#include "readers/request/prompts.h"

#include <algorithm>
#include <cmath>

#include "readers/error.h"

namespace eptx::core {
namespace {

constexpr size_t kMostStops = 65536;

Error OutOfRange(const char* name, const char* range, const std::string& value) {
  return RequestError(std::string(name) + " must be " + range + ", it is " + value);
}

}  // namespace

GenerateOptions ReadOptions(const eptx_generate_options& o) {
  if (o.max_new_tokens < 1 || o.max_new_tokens > kMostTokens) {
    throw OutOfRange("max_new_tokens", "an integer from 1 to 2147483647", std::to_string(o.max_new_tokens));
  }
  if (!std::isfinite(o.temperature) || o.temperature < 0) {
    throw OutOfRange("temperature", "a number and not negative", std::to_string(o.temperature));
  }
  if (!(o.top_p >= 0 && o.top_p <= 1)) throw OutOfRange("top_p", "from 0 to 1", std::to_string(o.top_p));
  if (o.top_k < 0) throw OutOfRange("top_k", "0 or more", std::to_string(o.top_k));
  if (o.stop_count > kMostStops) {
    throw OutOfRange("stop_count", "at most 65536", std::to_string(o.stop_count));
  }
  const Sampling sampling{o.temperature, static_cast<size_t>(o.top_k), o.top_p == 0 ? 1 : o.top_p, o.seed};
  return {o.max_new_tokens, sampling, {o.stop, o.stop + o.stop_count}, o.on_token, o.context};
}

Prompts ReadPrompts(const eptx_prompts& given, const Limits& limits, int64_t max_new_tokens) {
  if (given.row_count == 0) throw RequestError("there are no prompts");
  Prompts prompts;
  size_t left = given.id_count;
  const int64_t* ids = given.ids;
  for (size_t row = 0; row < given.row_count; ++row) {
    const size_t length = given.lengths[row];
    const std::string about = "prompt " + std::to_string(row);
    if (length == 0) throw RequestError(about + " is empty");
    if (length > left) throw RequestError("the lengths of the prompts are more than " + std::to_string(given.id_count));
    const auto most = static_cast<uint64_t>(limits.length.value_or(INT64_MAX));
    if (length + static_cast<uint64_t>(max_new_tokens) > most) {
      throw RequestError(about + " has " + std::to_string(length) + " tokens; with " + std::to_string(max_new_tokens) +
                         " new ones that is more than the " + std::to_string(most) + " that the model reads");
    }
    if (length > size_t{kMostTokens}) throw LimitError(about + " is too large");
    for (size_t i = 0; i < length; ++i) {
      if (ids[i] >= 0 && (!limits.vocabulary || ids[i] < *limits.vocabulary)) continue;
      throw RequestError("token " + std::to_string(i) + " of " + about + " is " + std::to_string(ids[i]) +
                         "; token ids are " +
                         (limits.vocabulary ? "0 to " + std::to_string(*limits.vocabulary - 1) : "not negative"));
    }
    prompts.rows.push_back({ids, length});
    prompts.longest = std::max(prompts.longest, length);
    ids += length;
    left -= length;
  }
  if (left != 0) throw RequestError("the lengths of the prompts are less than " + std::to_string(given.id_count));
  return prompts;
}

}  // namespace eptx::core
