// What must hold between the fields of a manifest that concern generation.
#include <algorithm>
#include <map>
#include <utility>

#include "readers/error.h"
#include "readers/formats/fields.h"
#include "readers/bundle/manifest.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

using Forms = std::map<std::string, std::pair<eptx_dtype, size_t>>;  // type and rank by name

Error Bad(const std::string& problem) { return BundleError(std::string(kManifestFile) + ": " + problem); }

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// Those whose names begin with a prefix, which is left out.
Forms FormsOf(const std::vector<TensorSpec>& specs, std::string_view prefix = {}) {
  Forms forms;
  for (const TensorSpec& spec : specs) {
    if (spec.name.compare(0, prefix.size(), prefix) != 0) continue;
    forms[spec.name.substr(prefix.size())] = {spec.dtype, spec.shape.size()};
  }
  return forms;
}

bool HasForm(const Forms& forms, const std::string& name, const Forms::mapped_type* form) {
  const auto found = forms.find(name);
  return form == nullptr ? found == forms.end() : found != forms.end() && found->second == *form;
}

// What was computed before goes in where the same comes out.
void CheckCache(const Manifest& m) {
  const Forms past = FormsOf(m.inputs, kPast), present = FormsOf(m.outputs, kPresent);
  const auto is_cache = [](const Forms::value_type& form) { return form.second.second == 4; };
  if (past != present || !std::all_of(past.begin(), past.end(), is_cache)) {
    throw Bad("the inputs past_key_values.* and the outputs present.* do not fit each other");
  }
  if (m.generation && past.empty()) throw Bad("a model that generates has inputs past_key_values.*");
}

void CheckTokens(const GenerationSpec& generation, const Manifest& m) {
  const int64_t vocabulary = std::min(m.vocab_size.value_or(kCounts), LogitsWidth(m).value_or(kCounts));
  const int64_t eos = *std::max_element(generation.eos.begin(), generation.eos.end());
  const int64_t largest = std::max({eos, generation.pad, generation.start.value_or(0)});
  if (largest < vocabulary) return;
  throw Bad("generation names token " + std::to_string(largest) + "; the model has " + std::to_string(vocabulary));
}

void CheckKind(const Manifest& m) {
  const bool two_parts = m.generation && !m.generation->is_decoder;
  if (two_parts != m.encoder.has_value()) throw Bad("an encoder-decoder has an encoder, and nothing else has one");
  if (!m.generation) return;
  const Forms inputs = FormsOf(m.inputs);
  for (const char* name : {"input_ids", "attention_mask"}) {
    const auto found = inputs.find(name);
    if (!two_parts && (found == inputs.end() || found->second.second != 2)) {
      throw Bad("a decoder has inputs input_ids and attention_mask [batch, length]");
    }
  }
  if (FormsOf(m.outputs).count("logits") == 0) throw Bad("a model that generates has an output logits");
  CheckTokens(*m.generation, m);
}

// Where the route of the prompt is kept, it is given and said for each row.
void CheckRouting(const Manifest& m) {
  Forms forms = FormsOf(m.outputs);
  forms.merge(FormsOf(m.inputs));
  const std::pair<std::string, Forms::mapped_type> wanted[] = {{std::string(kRouteGroup), {EPTX_INT64, 1}},
                                                              {std::string(kRouteWeights), {EPTX_FLOAT32, 2}}};
  for (const auto& [name, form] : wanted) {
    const auto* const has = m.routing == "prompt" ? &form : nullptr;
    const std::string used = name + std::string(kUsed);
    if (HasForm(forms, name, has) && HasForm(forms, used, has)) continue;
    throw Bad(name + " and " + used + " do not fit the routing " + m.routing.value_or("None"));
  }
  for (const TensorSpec& input : m.inputs) {
    if (input.name == kRouteWeights && (input.shape.size() != 2 || input.shape[1].is_name)) {
      throw Bad("route_weights does not say how many weights a row has");
    }
  }
}

void CheckEncoder(const Manifest& m, const Component& encoder) {
  if (m.files.count(encoder.file) == 0 || encoder.file == kModelFile || !EndsWith(encoder.file, ".onnx")) {
    throw Bad("the encoder's file " + Repr(encoder.file) + " is not a model of the bundle");
  }
  for (const auto& [what, tensors] : {std::pair("input", &encoder.inputs), std::pair("output", &encoder.outputs)}) {
    if (tensors->empty() || FormsOf(*tensors).size() != tensors->size()) {
      throw Bad(std::string("the encoder names no ") + what + ", or one twice");
    }
  }
}

}  // namespace

void CheckGeneration(const Manifest& m) {
  CheckCache(m);
  CheckKind(m);
  if (m.encoder) {
    CheckEncoder(m, *m.encoder);
  } else {
    CheckRouting(m);
  }
}

}  // namespace eptx::core
