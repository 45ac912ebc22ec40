#include "generate/decoder.h"

#include <optional>

#include "readers/error.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

bool IsTokens(const TensorSpec& spec) { return spec.dtype == EPTX_INT64 && spec.shape.size() == 2; }

// [batch, heads, past, head size]
bool IsCache(const TensorSpec& spec) {
  return spec.shape.size() == 4 && !spec.shape[1].is_name && spec.shape[2].is_name && !spec.shape[3].is_name &&
         spec.shape[1].size > 0 && spec.shape[3].size > 0;
}

// [batch] or [batch, size]
bool IsChoice(const TensorSpec& spec) {
  return spec.shape.size() == 1 || (spec.shape.size() == 2 && !spec.shape[1].is_name);
}

Error Unknown(const char* what, const TensorSpec& spec) {
  return NotSupportedError(std::string("the model's ") + what + " " + Shorten(Repr(spec.name), 60) +
                           " is not one that libeptx can generate with");
}

// The output that belongs to an input and has its type and rank.
size_t Partner(const Manifest& m, const TensorSpec& input, const std::string& name) {
  const auto output = FindTensor(m.outputs, name);
  if (!output) throw Unknown("input", input);
  const TensorSpec& spec = m.outputs[*output];
  if (spec.dtype != input.dtype || spec.shape.size() != input.shape.size()) throw Unknown("output", spec);
  return *output;
}

void AddInput(const Manifest& m, size_t index, Decoder& decoder) {
  const TensorSpec& spec = m.inputs[index];
  if (StartsWith(spec.name, kPast) && IsCache(spec)) {
    const std::string name = std::string(kPresent) + spec.name.substr(kPast.size());
    decoder.cache.push_back({index, Partner(m, spec, name)});
  } else if (spec.name == kTaskId) {
    if (m.task_inference) decoder.chosen.push_back({index, Partner(m, spec, std::string(kTaskIdUsed))});
  } else if ((spec.name == kRouteGroup || spec.name == kRouteWeights) && IsChoice(spec)) {
    decoder.chosen.push_back({index, Partner(m, spec, spec.name + std::string(kUsed))});
  } else if ((spec.name != kInputIds && spec.name != kAttentionMask) || !IsTokens(spec)) {
    throw Unknown("input", spec);
  }
}

}  // namespace

Decoder FindDecoder(const Manifest& m, const Operators& operators) {
  if (!m.generation) throw NotSupportedError("this bundle does not generate text: use eptx_session_run");
  if (!m.generation->is_decoder) {
    throw NotSupportedError("this bundle is an encoder-decoder, which libeptx does not run");
  }
  Decoder decoder;
  for (size_t i = 0; i < m.inputs.size(); ++i) AddInput(m, i, decoder);
  const auto ids = FindTensor(m.inputs, kInputIds), mask = FindTensor(m.inputs, kAttentionMask),
             logits = FindTensor(m.outputs, kLogits);
  if (!ids || !mask || !logits || decoder.cache.empty()) {
    throw NotSupportedError("libeptx generates with input_ids, attention_mask, logits and a cache; one is missing");
  }
  if (!operators.shares_cache) {
    throw NotSupportedError("libeptx generates with GroupQueryAttention, which the model does not have");
  }
  const TensorSpec& scores = m.outputs[*logits];
  if (scores.shape.size() != 3 || (scores.dtype != EPTX_FLOAT32 && scores.dtype != EPTX_FLOAT16)) {
    throw Unknown("output", scores);
  }
  decoder.ids = *ids;
  decoder.mask = *mask;
  decoder.logits = *logits;
  return decoder;
}

}  // namespace eptx::core
