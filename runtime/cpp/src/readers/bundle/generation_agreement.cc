// Checks that the fields of a manifest about generation agree with each other.
#include <algorithm>
#include <map>
#include <utility>

#include "readers/bundle/manifest.h"
#include "readers/formats/fields.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

using Forms = std::map<std::string, std::pair<eptx_dtype, size_t>>;  // type and rank by name

// The tensors whose names begin with a prefix, by the rest of the name.
Forms FormsOf(const std::vector<TensorSpec>& specs, std::string_view prefix = {}) {
  Forms forms;
  for (const TensorSpec& spec : specs) {
    if (StartsWith(spec.name, prefix)) forms[spec.name.substr(prefix.size())] = {spec.dtype, spec.shape.size()};
  }
  return forms;
}

bool HasForm(const Forms& forms, const std::string& name, const Forms::mapped_type* form) {
  const auto found = forms.find(name);
  return form == nullptr ? found == forms.end() : found != forms.end() && found->second == *form;
}

// Every cache input has an output of the same type and rank.
void CheckCache(const Manifest& m) {
  const Forms past = FormsOf(m.inputs, kPast), present = FormsOf(m.outputs, kPresent);
  const auto is_cache = [](const Forms::value_type& form) { return form.second.second == 4; };
  if (past != present || !std::all_of(past.begin(), past.end(), is_cache)) {
    throw ManifestError("the inputs past_key_values.* and the outputs present.* do not fit each other");
  }
  if (m.generation && past.empty()) throw ManifestError("a model that generates has inputs past_key_values.*");
}

void CheckTokens(const GenerationSpec& generation, const Manifest& m) {
  const int64_t vocabulary = std::min(m.vocab_size.value_or(kCounts), LogitsWidth(m).value_or(kCounts));
  const int64_t eos = *std::max_element(generation.eos.begin(), generation.eos.end());
  const int64_t largest = std::max({eos, generation.pad, generation.start.value_or(0)});
  if (largest < vocabulary) return;
  throw ManifestError("generation names token " + std::to_string(largest) + "; the model has " +
                      std::to_string(vocabulary));
}

void CheckKind(const Manifest& m) {
  const bool two_parts = m.generation && !m.generation->is_decoder;
  if (two_parts != m.has_encoder) throw ManifestError("an encoder-decoder has an encoder, and nothing else has one");
  if (!m.generation) return;
  for (const std::string_view name : {kInputIds, kAttentionMask}) {
    const auto found = FindTensor(m.inputs, name);
    if (!two_parts && (!found || m.inputs[*found].shape.size() != 2)) {
      throw ManifestError("a decoder has inputs input_ids and attention_mask [batch, length]");
    }
  }
  if (!FindTensor(m.outputs, kLogits)) throw ManifestError("a model that generates has an output logits");
  CheckTokens(*m.generation, m);
}

// With routing "prompt", the route is an input and an output; otherwise it is neither.
void CheckRouting(const Manifest& m) {
  Forms forms = FormsOf(m.outputs);
  forms.merge(FormsOf(m.inputs));
  const std::pair<std::string, Forms::mapped_type> wanted[] = {{std::string(kRouteGroup), {EPTX_INT64, 1}},
                                                               {std::string(kRouteWeights), {EPTX_FLOAT32, 2}}};
  for (const auto& [name, form] : wanted) {
    const auto* const has = m.routing == "prompt" ? &form : nullptr;
    const std::string used = name + std::string(kUsed);
    if (HasForm(forms, name, has) && HasForm(forms, used, has)) continue;
    throw ManifestError(name + " and " + used + " do not fit the routing");
  }
  for (const TensorSpec& input : m.inputs) {
    if (input.name == kRouteWeights && (input.shape.size() != 2 || input.shape[1].is_name)) {
      throw ManifestError("route_weights does not say how many weights a row has");
    }
  }
}

}  // namespace

void CheckGeneration(const Manifest& m) {
  CheckCache(m);
  CheckKind(m);
  if (!m.has_encoder) CheckRouting(m);
}

}  // namespace eptx::core
