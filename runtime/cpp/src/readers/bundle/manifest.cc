#include "readers/bundle/manifest.h"

#include <algorithm>
#include <set>
#include <string>

#include "readers/dtype.h"
#include "readers/formats/fields.h"
#include "readers/formats/files.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

constexpr int64_t kSchemaVersion = 1;

void CheckVersion(int64_t version) {
  if (version == kSchemaVersion) return;
  throw BundleError(std::string(kManifestFile) + ": schema version " + std::to_string(version) + "; this eptx reads " +
                    std::to_string(kSchemaVersion) + (version > kSchemaVersion ? "; upgrade eptx" : ""));
}

Task ReadTask(Fields f) {
  Task task{f.String("name"), f.Count("id"), {}, {}, EPTX_NO_PROBLEM};
  if (f.Present("labels")) task.labels = f.Count("labels");
  if (f.Present("label_names")) task.label_names = f.StringList("label_names");
  if (f.Present("problem_type")) {
    const std::vector<std::string> types{"regression", "single_label_classification", "multi_label_classification"};
    const auto found = std::find(types.begin(), types.end(), f.Choice("problem_type", types));
    task.problem_type = static_cast<eptx_problem_type>(1 + (found - types.begin()));
  }
  bool printable = IsPrintable(task.name);
  if (task.label_names) {
    printable = printable && std::all_of(task.label_names->begin(), task.label_names->end(),
                                         [](const std::string& name) { return IsPrintable(name); });
  }
  if (!printable) throw f.Bad("has a name that cannot be printed");
  if (task.label_names && (!task.labels || static_cast<int64_t>(task.label_names->size()) != *task.labels)) {
    throw f.Bad("has " + std::to_string(task.label_names->size()) + " label names for " +
                (task.labels ? std::to_string(*task.labels) : "None") + " labels");
  }
  f.Done();
  return task;
}

Dimension ReadDimension(const Fields& f, const Json& value) {
  if (value.is_string()) return {-1, value.get<std::string>(), true};
  if (!IsCount(value)) {
    throw f.Bad("has a shape that is not a list of names and sizes");
  }
  return {value.get<int64_t>(), {}, false};
}

TensorSpec ReadTensor(Fields f) {
  TensorSpec tensor;
  for (const Json& value : f.Array("shape")) tensor.shape.push_back(ReadDimension(f, value));
  tensor.name = f.String("name");
  std::vector<std::string> names;
  for (const auto& known : kDtypes) names.emplace_back(known.name);
  const std::string dtype = f.Choice("dtype", names);
  for (const auto& known : kDtypes) {
    if (dtype == known.name) tensor.dtype = known.dtype;
  }
  f.Done();
  return tensor;
}

std::vector<TensorSpec> ReadTensors(std::vector<Fields> children) {
  std::vector<TensorSpec> tensors;
  for (Fields& child : children) tensors.push_back(ReadTensor(std::move(child)));
  return tensors;
}

void CheckExperts(const Fields& f, const Json& experts) {
  const auto is_expert = [](const Json& value) { return value.is_number_unsigned() && value.get<uint64_t>() < 65536; };
  if (!std::all_of(experts.begin(), experts.end(), is_expert)) {
    throw f.Bad("has unused experts that are not a list of their numbers");
  }
}

void CheckModule(Fields f) {
  const Json& columns = f.Array("columns");
  const bool whole = columns.size() == 2 && IsCount(columns[0]) && IsCount(columns[1]);
  if (!whole || columns[0].get<uint64_t>() >= columns[1].get<uint64_t>()) {
    throw f.Bad("has columns that are not [first, last]");
  }
  f.String("output");
  f.Boolean("bias");
  if (f.Present("unused_experts")) CheckExperts(f, f.Array("unused_experts"));
  f.Done();
}

void CheckModules(Fields f) {
  for (auto& [name, module] : f.Items()) CheckModule(std::move(module));
}

int64_t ReadOperators(Fields f) {
  const std::string domain = f.String("domain");
  const int64_t version = f.Integer("version");
  f.Done();
  if (domain != kOperatorDomain) {
    throw f.Bad("names domain " + Repr(domain) + "; this eptx knows " + kOperatorDomain);
  }
  if (version != kOperatorVersion) {
    throw f.Bad("is version " + std::to_string(version) + " of " + kOperatorDomain + "; this eptx knows " +
                std::to_string(kOperatorVersion));
  }
  return version;
}

std::vector<int64_t> ReadTokens(const Fields& f, const Json& values) {
  std::vector<int64_t> tokens;
  if (values.empty() || !std::all_of(values.begin(), values.end(), IsCount)) {
    throw f.Bad("eos must be a list of token ids");
  }
  for (const Json& value : values) tokens.push_back(value.get<int64_t>());
  return tokens;
}

GenerationSpec ReadGeneration(Fields f) {
  GenerationSpec generation;
  generation.eos = ReadTokens(f, f.Array("eos"));
  generation.is_decoder = f.Choice("kind", {"decoder", "encoder-decoder"}) == "decoder";
  generation.pad = f.Count("pad");
  if (f.Present("start")) generation.start = f.Count("start");
  if (generation.is_decoder == generation.start.has_value()) {
    throw f.Bad("an encoder-decoder has a token start, a decoder has none");
  }
  f.Done();
  return generation;
}

Component ReadComponent(Fields f) {
  Component component{f.String("file"), ReadTensors(f.Children("inputs")), ReadTensors(f.Children("outputs"))};
  CheckModules(f.Child("modules"));
  f.Done();
  return component;
}

// How texts become tokens is the business of those who tokenize.
void CheckText(Fields f) {
  if (f.Present("max_length")) f.Count("max_length", 1);
  for (const char* side : {"truncation_side", "padding_side"}) f.Choice(side, {"left", "right"});
  f.Count("pad");
  f.Boolean("lower_case");
  f.Done();
}

void CheckSources(Fields f) {
  f.Boolean("base");
  f.Boolean("base_onnx");
  if (f.Present("top_k")) f.Count("top_k", 1);
  if (f.Present("tasks")) f.StringList("tasks");
  if (f.Present("problem_types")) f.Child("problem_types").Strings();
  f.Done();
}

void CheckFrozen(Fields f) {
  f.Count("group");
  const Json& weights = f.Array("weights");
  if (!std::all_of(weights.begin(), weights.end(), [](const Json& w) { return w.is_number(); })) {
    throw f.Bad("weights must be a list of numbers");
  }
  f.Done();
}

// A task has a route for each call of the router, but for the calls whose route is constant.
void CheckRoute(Fields f) {
  Fields tasks = f.Child("tasks");
  for (const auto& task : tasks.raw().items()) {
    for (const Fields& frozen : tasks.Children(task.key())) CheckFrozen(frozen);
  }
  for (Fields& frozen : f.Children("constant")) {
    frozen.Count("call");
    CheckFrozen(frozen);
  }
  if (f.Present("frozen_error")) {
    for (const auto& [name, error] : f.Child("frozen_error").Items()) {
      const Json& values = error.raw();
      if (!std::all_of(values.begin(), values.end(), [](const Json& v) { return v.is_number(); })) {
        throw error.Bad("must hold numbers");
      }
    }
  }
  f.Done();
}

// How weights are stored: nothing of it is needed to run the model.
void CheckQuantization(Fields f) {
  const std::set<std::string> schemes{"fp32", "fp16", "int8", "int8-static", "int8-blocks", "int4-blocks"};
  for (const char* kind : {"products", "embeddings"}) {
    Fields stored = f.Child(kind);
    stored.Strings();
    const auto is_known = [&](const Json& scheme) { return schemes.count(scheme.get<std::string>()) != 0; };
    if (!std::all_of(stored.raw().begin(), stored.raw().end(), is_known)) {
      throw f.Bad("has a scheme that is not one of fp32, fp16, int8, int8-static, int8-blocks, int4-blocks");
    }
  }
  const Fields budget = f.Child("budget");
  const auto is_points = [](const Json& value) { return value.is_number() && value.get<double>() >= 0; };
  if (!std::all_of(budget.raw().begin(), budget.raw().end(), is_points)) {
    throw f.Bad("has a budget that is not a number of points");
  }
  f.Child("metrics").Strings();
  if (f.Present("rows")) f.Count("rows", 1);
  f.Done();
}

FileEntry ReadFileEntry(const std::string& name, Fields f) {
  FileEntry entry{static_cast<uint64_t>(f.Integer("size", 0)), f.String("sha256")};
  f.Done();
  if (!IsContainedName(name)) throw f.Bad("is not a name inside the bundle");
  if (name == kManifestFile || std::count(std::begin(kReportFiles), std::end(kReportFiles), name) != 0) {
    throw f.Bad("must not be listed");
  }
  if (entry.sha256.size() != 64 || entry.sha256.find_first_not_of("0123456789abcdef") != std::string::npos) {
    throw f.Bad("has no SHA-256 of 64 hexadecimal digits");
  }
  return entry;
}

}  // namespace

Manifest ParseManifest(std::string_view text) {
  const Json value = ParseJson(text, kManifestFile);
  Fields f(value, kManifestFile);
  CheckVersion(f.Integer("schema_version"));
  Manifest m;
  f.String("generator");
  m.mode = f.Choice("mode", {"static", "conditioned", "dynamic"});
  m.method = f.Choice("method", {"ept", "tucka", "lora"});
  m.model_type = f.String("model_type");
  m.precision = f.Choice("precision", {"fp32", "fp16", "int8", "int8-static", "int4", "mixed"});
  m.provider = f.Choice("provider", {"cpu", "cuda"});
  for (Fields& task : f.Children("tasks")) m.tasks.push_back(ReadTask(std::move(task)));
  m.inputs = ReadTensors(f.Children("inputs"));
  m.outputs = ReadTensors(f.Children("outputs"));
  CheckSources(f.Child("sources"));
  f.Child("fingerprints").Strings();
  CheckModules(f.Child("modules"));
  m.task_inference = f.Boolean("task_inference");
  if (f.Present("operators")) m.operators = ReadOperators(f.Child("operators"));
  if (f.Present("routing")) m.routing = f.Choice("routing", {"batch", "row", "prompt"});
  if (f.Present("route")) CheckRoute(f.Child("route"));
  if (f.Present("quantization")) CheckQuantization(f.Child("quantization"));
  if (f.Present("generation")) m.generation = ReadGeneration(f.Child("generation"));
  if (f.Present("encoder")) m.encoder = ReadComponent(f.Child("encoder"));
  if (f.Present("text")) CheckText(f.Child("text"));
  if (f.Present("vocab_size")) m.vocab_size = f.Count("vocab_size", 1);
  if (f.Present("max_length")) m.max_length = f.Count("max_length", 1);
  for (auto& [name, entry] : f.Child("files").Items()) m.files.emplace(name, ReadFileEntry(name, std::move(entry)));
  f.Done();
  CheckAgreement(m);
  return m;
}

}  // namespace eptx::core
