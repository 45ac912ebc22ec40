#include "readers/bundle/manifest.h"

#include <algorithm>
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
  throw ManifestError("schema version " + std::to_string(version) + "; this eptx reads " +
                      std::to_string(kSchemaVersion) + (version > kSchemaVersion ? "; upgrade eptx" : ""));
}

Task ReadTask(Fields f) {
  Task task{f.String("name"), f.Count("id"), {}, {}, EPTX_NO_PROBLEM, {}};
  if (f.Present("labels")) task.labels = f.Count("labels");
  if (f.Present("label_names")) task.label_names = f.StringList("label_names");
  if (f.Present("problem_type")) {
    const std::vector<std::string> types{"regression", "single_label_classification", "multi_label_classification"};
    const auto found = std::find(types.begin(), types.end(), f.Choice("problem_type", types));
    task.problem_type = static_cast<eptx_problem_type>(1 + (found - types.begin()));
  }
  if (f.Present("vocab_size")) task.vocab_size = f.Count("vocab_size", 1);
  bool printable = IsPrintable(task.name);
  if (task.label_names) {
    printable = printable && std::all_of(task.label_names->begin(), task.label_names->end(),
                                         [](const std::string& name) { return IsPrintable(name); });
  }
  if (!printable) throw f.Bad("has a name that cannot be printed");
  if (task.label_names && (!task.labels || static_cast<int64_t>(task.label_names->size()) != *task.labels)) {
    throw f.Bad("does not have one label name for each label");
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

constexpr int64_t kMostExperts = 1 << 16;

ModulePlace ReadModule(Fields f) {
  const Json& columns = f.Array("columns");
  const bool fits = columns.size() == 2 && std::all_of(columns.begin(), columns.end(), IsCount);
  if (!fits || columns[0] >= columns[1]) throw f.Bad("has columns that are not [first, last]");
  ModulePlace place{f.String("output"), columns[0].get<int64_t>(), columns[1].get<int64_t>(), {}};
  f.Boolean("bias");
  if (f.Present("unused_experts")) {
    for (const Json& expert : f.Array("unused_experts")) {
      if (!IsCount(expert) || expert >= kMostExperts) {
        throw f.Bad("has unused experts that are not a list of their numbers");
      }
      place.unused.push_back(expert.get<int64_t>());
    }
  }
  f.Done();
  return place;
}

ModulePlaces ReadModules(Fields f) {
  ModulePlaces places;
  for (auto& [name, child] : f.Items()) places.emplace(name, ReadModule(std::move(child)));
  return places;
}

EncoderSpec ReadEncoder(Fields f) {
  EncoderSpec encoder{f.String("file"), ReadTensors(f.Children("inputs")), ReadTensors(f.Children("outputs")),
                      ReadModules(f.Child("modules"))};
  f.Done();
  return encoder;
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

// Digits before and after one point, at most four of each.
std::optional<Release> ReadRelease(const std::string& text) {
  constexpr char digits[] = "0123456789";
  const size_t point = text.find_first_not_of(digits);
  if (point == text.npos || text[point] != '.' || text.find_first_not_of(digits, point + 1) != text.npos) return {};
  const std::string major = text.substr(0, point), minor = text.substr(point + 1);
  if (major.empty() || minor.empty() || major.size() > 4 || minor.size() > 4) return {};
  return Release{std::stoll(major), std::stoll(minor)};
}

Release ReadOnnxRuntime(Fields f) {
  const std::optional<Release> release = ReadRelease(f.String("version"));
  f.Count("ir_version", 1);
  f.Count("opset", 1);
  f.Done();
  if (!release) throw f.Bad("has a version that is no release such as \"1.17\"");
  return *release;
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
  for (const char* field : {"longest", "rules"}) {  // libeptx does not run encoder-decoders
    if (f.Present(field) && generation.is_decoder) throw f.Bad("rules and longest are of an encoder-decoder");
  }
  f.Done();
  return generation;
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

bool TaskPerRequest(const Manifest& manifest) {
  const auto found = FindTensor(manifest.inputs, kTaskId);
  if (!found) return false;
  const std::vector<Dimension>& shape = manifest.inputs[*found].shape;
  return shape.size() == 1 && !shape[0].is_name && shape[0].size == 1;
}

std::optional<size_t> FindTensor(const std::vector<TensorSpec>& specs, std::string_view name) {
  const auto found =
      std::find_if(specs.begin(), specs.end(), [&](const TensorSpec& spec) { return spec.name == name; });
  if (found == specs.end()) return {};
  return static_cast<size_t>(found - specs.begin());
}

Error ManifestError(const std::string& problem) { return BundleError(std::string(kManifestFile) + ": " + problem); }

Manifest ParseManifest(std::string_view text) {
  const Json value = ParseJson(text, kManifestFile);
  Fields f(value, kManifestFile);
  CheckVersion(f.Integer("schema_version"));
  Manifest m;
  f.String("generator");
  m.mode = f.Choice("mode", {"static", "conditioned", "dynamic"});
  m.method = f.Name("method");
  m.model_type = f.String("model_type");
  m.precision = f.Choice("precision", {"fp32", "fp16", "int8", "int8-static", "int4", "mixed"});
  m.provider = f.Choice("provider", {"cpu", "cuda"});
  for (Fields& task : f.Children("tasks")) m.tasks.push_back(ReadTask(std::move(task)));
  m.inputs = ReadTensors(f.Children("inputs"));
  m.outputs = ReadTensors(f.Children("outputs"));
  for (const char* section : {"sources", "fingerprints"}) f.Child(section);
  m.modules = ReadModules(f.Child("modules"));
  m.task_inference = f.Boolean("task_inference");
  if (f.Present("operators")) m.operators = ReadOperators(f.Child("operators"));
  if (f.Present("onnxruntime")) m.onnxruntime = ReadOnnxRuntime(f.Child("onnxruntime"));
  if (f.Present("routing")) m.routing = f.Choice("routing", {"batch", "row", "prompt"});
  for (const char* section : {"route", "quantization", "text", "image", "embedding"}) {
    if (f.Present(section)) f.Child(section);
  }
  if (f.Present("generation")) m.generation = ReadGeneration(f.Child("generation"));
  m.has_encoder = f.Present("encoder");
  if (m.has_encoder) m.encoder = ReadEncoder(f.Child("encoder"));
  if (f.Present("vocab_size")) m.vocab_size = f.Count("vocab_size", 1);
  if (f.Present("max_length")) m.max_length = f.Count("max_length", 1);
  for (auto& [name, entry] : f.Child("files").Items()) m.files.emplace(name, ReadFileEntry(name, std::move(entry)));
  f.Done();
  CheckAgreement(m);
  return m;
}

}  // namespace eptx::core
