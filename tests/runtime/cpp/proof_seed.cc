#include "proof_seed.h"

#include <nlohmann/json.hpp>
#include <vector>

namespace eptx::fuzz {
namespace {

using Json = nlohmann::json;

// A batch that generates: two rows of three tokens, of which one is padding, and logits of which the largest are kept.
constexpr char kObject[] = R"({
  "version": 1, "generator": "eptx", "columns": 2, "class_name": "Model", "modules": ["a"], "redrawn": 0,
  "unclear": {"mnli": "a"}, "folded": {"a": 20.5},
  "bundle": {"mode": "conditioned", "files": {"model.onnx": {"size": 1, "sha256": "00"}}},
  "batches": [{
    "name": "mixed", "tasks": ["sst2", "mnli"], "seed": 1, "measures_effect": true, "prompt": 2, "greedy": true,
    "inside": true, "inputs": ["input_ids", "attention_mask"], "groups": [{"a": [0, 1]}, {"a": [2]}],
    "outputs": {"logits": [2, 3, 5]}, "inner": {}, "modules": {"a": [2, 3, 2]}}],
  "experts": [{"module": "a"}],
  "models": {"order": ["a"], "routes": {"a": ["x", "y"]},
    "encoder": {"order": [], "routes": {}, "encoder": null}},
  "checks": [{"name": "a", "how": "run", "wrong": null, "why": null}],
  "drops": [{"budget": null, "drop": {"task": "mnli", "metric": "accuracy", "labelled": true, "rows": 2, "reference": 1.0,
    "found": 0.5, "points": 50.0, "low": 0.0, "high": 100.0}}],
  "divergences": [{"task": "mnli", "output": "logits", "measure": "tokens", "value": 0.1, "limit": 1.0,
    "disagreement": 0.0, "vectors": 5}],
  "noise": [["sst2", "module", "a", 4, 0.1, 0.2]], "scale": [["sst2", "output", "logits", 4, 1.0, 2.0]],
  "effect": [["sst2", "module", "a", 4, 1.0, 2.0]]
})";

struct Entry {
  const char* name;
  const char* type;
  std::vector<int64_t> shape;
  size_t width;  // bytes of a number
};

const std::vector<Entry>& Entries() {
  static const std::vector<Entry> entries = {{"batches.0.compared", "BOOL", {2}, 1},
                                             {"batches.0.inputs.attention_mask", "I64", {2, 3}, 8},
                                             {"batches.0.inputs.input_ids", "I64", {2, 3}, 8},
                                             {"batches.0.modules.a", "F64", {5, 2}, 8},
                                             {"batches.0.outputs.logits", "F64", {5, 2}, 8},
                                             {"batches.0.outputs.logits.largest", "I64", {5, 3}, 8},
                                             {"batches.0.outputs.logits.largest_values", "F64", {5, 3}, 8},
                                             {"batches.0.task", "I64", {2}, 8},
                                             {"encoder.added", "U8", {3}, 1},
                                             {"experts.a.experts", "I64", {2, 2}, 8},
                                             {"experts.a.flipped", "BOOL", {2}, 1},
                                             {"experts.a.tied", "BOOL", {2}, 1},
                                             {"model.added", "U8", {0}, 1}};
  return entries;
}

// The file: its header, with zeros and ones behind it.
std::string File(const std::string& header) {
  std::string data;
  for (const Entry& entry : Entries()) {
    size_t count = 1;
    for (const int64_t size : entry.shape) count *= static_cast<size_t>(size);
    for (size_t i = 0; i < count; ++i) {
      std::string number(entry.width, '\0');
      // the first position of the first row is padding
      number[0] = std::string(entry.name) == "batches.0.inputs.attention_mask" && i == 0 ? 0 : 1;
      data += number;
    }
  }
  std::string size;
  for (int i = 0; i < 8; ++i) size += static_cast<char>(header.size() >> (8 * i) & 0xFF);
  return size + header + data;
}

std::string Header(const std::string& object) {
  Json header = {{"__metadata__", {{"eptx_proof", object}, {"sha256", ""}}}};
  int64_t end = 0;
  for (const Entry& entry : Entries()) {
    int64_t bytes = static_cast<int64_t>(entry.width);
    for (const int64_t size : entry.shape) bytes *= size;
    header[entry.name] = {{"dtype", entry.type}, {"shape", entry.shape}, {"data_offsets", {end, end + bytes}}};
    end += bytes;
  }
  return header.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string SeedProof() { return File(Header(kObject)); }

std::string MutateProof(Random& random) {
  switch (random() % 4) {
    case 0:
      return MutateBytes(SeedProof(), random);
    case 1:
      return File(MutateJson(Header(kObject), random));
    default:
      return File(Header(MutateJson(kObject, random)));
  }
}

}  // namespace eptx::fuzz
