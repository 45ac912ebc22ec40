#include "readers/proof/proof.h"

#include <algorithm>
#include <cstring>

#include "readers/dtype.h"
#include "readers/error.h"
#include "readers/formats/fields.h"
#include "readers/formats/files.h"
#include "readers/proof/safetensors.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

constexpr size_t kFileLimit = 256u << 20;
constexpr int64_t kVersion = 1;
constexpr char kLogitsName[] = "logits", kMaskName[] = "attention_mask", kIdsName[] = "input_ids";

// What the object says, with the arrays that it names.
class Reader {
 public:
  Reader(const std::string& name, const Safetensors& file) : name_(name), file_(file) {}

  Error Bad(const std::string& problem) const { return BundleError(name_ + ": damaged: " + problem); }

  const StoredTensor& Find(const std::string& key, const char* type) const {
    const auto found = file_.tensors.find(key);
    if (found == file_.tensors.end()) throw Bad("it has no " + Shown(key));
    if (type != nullptr && found->second.type != type) throw Bad(Shown(key) + " is not " + type);
    return found->second;
  }

  bool Has(const std::string& key) const { return file_.tensors.count(key) != 0; }

  std::string Bytes(const std::string& key) const { return std::string(Find(key, "U8").bytes); }

  std::vector<double> Doubles(const std::string& key) const { return Copy<double>(Find(key, "F64")); }

  std::vector<int64_t> Integers(const std::string& key) const {
    const StoredTensor& tensor = Find(key, nullptr);
    if (tensor.type == "I64") return Copy<int64_t>(tensor);
    if (tensor.type != "I32") throw Bad(Shown(key) + " has no integers");
    const std::vector<int32_t> small = Copy<int32_t>(tensor);
    return {small.begin(), small.end()};
  }

  std::vector<bool> Booleans(const std::string& key) const {
    const std::string_view bytes = Find(key, "BOOL").bytes;
    std::vector<bool> values;
    for (const char byte : bytes) values.push_back(byte != 0);
    return values;
  }

  // A name from the file, for an error.
  static std::string Shown(const std::string& key) { return Shorten(Repr(key), 60); }

 private:
  template <typename T>
  static std::vector<T> Copy(const StoredTensor& tensor) {
    std::vector<T> values(tensor.count());
    if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  }

  const std::string& name_;
  const Safetensors& file_;
};

std::vector<int64_t> Shape(const Fields& f, const Json& value) {
  if (!value.is_array() || value.empty() || !std::all_of(value.begin(), value.end(), IsCount)) {
    throw f.Bad("has a shape that is not a list of sizes");
  }
  return value.get<std::vector<int64_t>>();
}

const Json& Object(Fields& f, const std::string& key) {
  const Json& value = f.Value(key);
  if (!value.is_object()) throw f.Bad(key + " must be a JSON object");
  return value;
}

Sample ReadSample(const Reader& reader, const std::string& key, std::vector<int64_t> shape, const ProvedBatch& batch) {
  Sample sample;
  sample.shape = std::move(shape);
  const StoredTensor& stored = reader.Find(key, "F64");
  const auto fits = [&] {
    if (stored.shape.size() != 2 || static_cast<size_t>(sample.shape[0]) != batch.rows()) return false;
    auto places = PlacesOf(sample.shape, batch.mask, static_cast<size_t>(stored.shape[0]));
    if (!places || places->count() != static_cast<size_t>(stored.shape[0])) return false;
    sample.places = std::move(*places);
    sample.columns = static_cast<size_t>(stored.shape[1]);
    return sample.columns <= sample.places.width && (sample.columns != 0 || sample.places.width == 0);
  };
  if (!fits()) throw reader.Bad(Reader::Shown(key) + " is no sample of its shape");
  sample.values = reader.Doubles(key);
  if (!reader.Has(key + ".largest")) return sample;
  const std::vector<int64_t> places = {stored.shape[0]};
  const std::vector<int64_t>& found = reader.Find(key + ".largest", "I64").shape;
  const std::vector<int64_t>& values = reader.Find(key + ".largest_values", "F64").shape;
  sample.largest = reader.Integers(key + ".largest");
  sample.largest_values = reader.Doubles(key + ".largest_values");
  const auto width = static_cast<int64_t>(sample.places.width);
  const bool inside = std::all_of(sample.largest.begin(), sample.largest.end(),
                                  [&](int64_t index) { return index >= 0 && index < width; });
  if (found.size() != 2 || found != values || found[0] != places[0] || found[1] == 0 || !inside) {
    throw reader.Bad(Reader::Shown(key) + " does not say its largest numbers");
  }
  sample.most = static_cast<size_t>(found[1]);
  return sample;
}

Samples ReadSamples(const Reader& reader, Fields& f, const std::string& own, const char* kind,
                    const ProvedBatch& batch) {
  Samples samples;
  for (const auto& item : Object(f, kind).items()) {
    const std::string key = own + "." + kind + "." + item.key();
    samples.emplace(item.key(), ReadSample(reader, key, Shape(f, item.value()), batch));
  }
  return samples;
}

ProvedInput ReadInput(const Reader& reader, const std::string& key) {
  const StoredTensor& stored = reader.Find(key, nullptr);
  constexpr std::pair<const char*, eptx_dtype> kKnown[] = {{"F16", EPTX_FLOAT16}, {"F32", EPTX_FLOAT32},
                                                           {"F64", EPTX_FLOAT64}, {"I32", EPTX_INT32},
                                                           {"I64", EPTX_INT64},   {"BOOL", EPTX_BOOL}};
  for (const auto& [type, dtype] : kKnown) {
    if (stored.type != type) continue;
    ProvedInput input{dtype, stored.shape, std::make_unique<std::byte[]>(stored.bytes.size()), stored.bytes.size()};
    std::copy(stored.bytes.begin(), stored.bytes.end(), reinterpret_cast<char*>(input.data.get()));
    return input;
  }
  throw reader.Bad(Reader::Shown(key) + " is no input of a model");
}

// The numbers of an input that are not zero.
std::vector<bool> Set(const ProvedInput& input) {
  const size_t width = DtypeSize(input.dtype);
  std::vector<bool> set(input.bytes / width);
  for (size_t i = 0; i < input.bytes; ++i) {
    if (input.data[i] != std::byte{0}) set[i / width] = true;
  }
  return set;
}

void ReadInputs(const Reader& reader, Fields& f, const std::string& own, ProvedBatch& batch) {
  batch.input_order = f.StringList("inputs");
  if (batch.input_order.empty()) throw f.Bad("has no inputs");
  for (const std::string& name : batch.input_order) {
    batch.inputs.emplace(name, ReadInput(reader, own + ".inputs." + name));
  }
  const auto mask = batch.inputs.find(kMaskName);
  if (mask != batch.inputs.end() && mask->second.shape.size() == 2) {
    const std::vector<int64_t>& shape = mask->second.shape;
    batch.mask = Mask{static_cast<size_t>(shape[0]), static_cast<size_t>(shape[1]), Set(mask->second)};
  }
}

// The prompts of a model that generates: its tokens, of every row, and what of them is no padding.
void CheckPrompt(const Fields& f, ProvedBatch& batch) {
  const auto rows = static_cast<int64_t>(batch.rows());
  const auto fits = [&](const std::string& name, int64_t& length) {
    const auto found = batch.inputs.find(name);
    if (found == batch.inputs.end()) return false;
    const ProvedInput& input = found->second;
    if (input.dtype != EPTX_INT64 || input.shape.size() != 2 || input.shape[0] != rows) return false;
    length = input.shape[1];
    return true;
  };
  const bool answers = batch.inputs.count(std::string(kAnswerIds)) != 0;
  if (!fits(answers ? std::string(kAnswerIds) : kIdsName, batch.length)) throw f.Bad("has no tokens of its prompts");
  int64_t masked = batch.length;
  if (!answers && !fits(kMaskName, masked)) throw f.Bad("has no mask of its prompts");
  if (masked != batch.length || *batch.prompt < 1 || *batch.prompt > batch.length) {
    throw f.Bad("has prompts that are longer than its rows");
  }
}

std::vector<Groups> ReadGroups(const Fields& f, const Json& calls, size_t rows) {
  std::vector<Groups> found;
  for (const Json& call : calls) {
    if (!call.is_object()) throw f.Bad("groups must be a list of JSON objects");
    Groups& groups = found.emplace_back();
    for (const auto& item : call.items()) {
      const Json& list = item.value();
      const bool fits = list.is_array() && (list.size() == 1 || list.size() == rows) &&
                        std::all_of(list.begin(), list.end(), [](const Json& one) { return one.is_number_integer(); });
      if (!fits) throw f.Bad("groups must have a number for each row");
      groups.emplace(item.key(), list.get<std::vector<int64_t>>());
    }
  }
  return found;
}

ProvedBatch ReadBatch(const Reader& reader, Fields f, size_t number) {
  const std::string own = "batches." + std::to_string(number);
  ProvedBatch batch;
  batch.name = f.String("name");
  batch.tasks = f.StringList("tasks");
  batch.greedy = f.Boolean("greedy");
  batch.inside = f.Boolean("inside");
  f.Value("seed");
  f.Boolean("measures_effect");
  if (f.Present("prompt")) batch.prompt = f.Count("prompt", 1);
  if (!IsPrintable(batch.name) ||
      !std::all_of(batch.tasks.begin(), batch.tasks.end(), [](const std::string& task) { return IsPrintable(task); })) {
    throw f.Bad("has a name that cannot be printed");
  }
  ReadInputs(reader, f, own, batch);
  if (batch.prompt) CheckPrompt(f, batch);
  batch.groups = ReadGroups(f, f.Array("groups"), batch.rows());
  batch.compared = reader.Booleans(own + ".compared");
  batch.ids = reader.Integers(own + ".task");
  if (batch.tasks.empty() || batch.compared.size() != batch.rows() || batch.ids.size() != batch.rows()) {
    throw f.Bad("does not say which rows are compared");
  }
  batch.outputs = ReadSamples(reader, f, own, "outputs", batch);
  batch.inner = ReadSamples(reader, f, own, "inner", batch);
  batch.modules = ReadSamples(reader, f, own, "modules", batch);
  const auto logits = batch.outputs.find(kLogitsName);
  const bool chooses = logits != batch.outputs.end() && logits->second.shape.size() == 3;
  if (batch.greedy && (!batch.prompt || (chooses && logits->second.shape[1] != batch.length))) {
    throw f.Bad("has no tokens to choose");
  }
  f.Done();
  return batch;
}

Observed ReadObserved(const Reader& reader, Fields& f, const std::string& own) {
  Observed model;
  model.added = reader.Bytes(own + ".added");
  if (reader.Has(own + ".float_activations")) model.float_activations = reader.Bytes(own + ".float_activations");
  model.order = f.StringList("order");
  for (const auto& item : Object(f, "routes").items()) {
    const Json& pair = item.value();
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      throw f.Bad("routes must name two values of a module");
    }
    model.routes.emplace(item.key(), std::pair(pair[0].get<std::string>(), pair[1].get<std::string>()));
  }
  return model;
}

Spreads ReadSpreads(Fields& f, const std::string& key, std::vector<Subject>* order = nullptr) {
  Spreads spreads;
  for (const Json& row : f.Array(key)) {
    const bool fits = row.is_array() && row.size() == 6 && row[0].is_string() && row[1].is_string() &&
                      row[2].is_string() && row[3].is_number_unsigned() && row[4].is_number() && row[5].is_number();
    if (!fits || (row[1] != "module" && row[1] != "output")) {
      throw f.Bad(key + " must be lists of task, kind, name, count, squares and largest");
    }
    Subject subject{row[0].get<std::string>(), row[1] == "module" ? Kind::kModule : Kind::kOutput,
                    row[2].get<std::string>()};
    if (!IsPrintable(subject.name)) throw f.Bad(key + " has a name that cannot be printed");
    if (order != nullptr) order->push_back(subject);
    spreads[std::move(subject)] = {row[3].get<int64_t>(), row[4].get<double>(), row[5].get<double>()};
  }
  return spreads;
}

ExpertTable ReadTable(const Reader& reader, Fields f) {
  ExpertTable table;
  table.module = f.String("module");
  f.Done();
  const std::string own = "experts." + table.module;
  table.experts = reader.Integers(own + ".experts");
  table.tied = reader.Booleans(own + ".tied");
  reader.Booleans(own + ".flipped");
  const std::vector<int64_t>& shape = reader.Find(own + ".experts", nullptr).shape;
  if (shape.size() != 2 || static_cast<size_t>(shape[0]) != table.tied.size()) {
    throw f.Bad("does not say each task's experts");
  }
  table.tasks = static_cast<size_t>(shape[0]);
  table.chosen = static_cast<size_t>(shape[1]);
  return table;
}

// A list of objects that go into the report as they are; `check` reads what the verdict needs of each.
template <typename Check>
Json ReadList(Fields& f, const std::string& key, Check check) {
  for (Fields& child : f.Children(key)) check(child);
  return f.Array(key);
}

void CheckCheck(Fields& f) {
  f.String("name");
  f.Choice("how", {"compared", "run", "unchecked"});
  for (const char* key : {"wrong", "why"}) {
    if (f.Present(key)) f.String(key);
  }
  f.Done();
}

void CheckDrop(Fields& f) {
  if (f.Present("budget")) f.Number("budget");
  Fields drop = f.Child("drop");
  for (const char* key : {"task", "metric"}) drop.String(key);
  for (const char* key : {"rows", "reference", "found", "points", "low", "high"}) drop.Number(key);
  drop.Boolean("labelled");
  drop.Done();
  f.Done();
}

void CheckDivergence(Fields& f) {
  for (const char* key : {"task", "output"}) f.String(key);
  f.Choice("measure", {"positions", "rows", "tokens"});
  for (const char* key : {"value", "limit", "vectors"}) f.Number(key);
  if (f.Present("disagreement")) f.Number("disagreement");
  f.Done();
}

// The verdict names something of every task.
void CheckTasks(const Fields& f, const Proof& proof) {
  if (proof.batches.empty()) throw f.Bad("has no batches");
  if (!proof.model.order.empty()) return;
  for (const ProvedBatch& batch : proof.batches) {
    for (const std::string& task : batch.tasks) {
      const bool said = std::any_of(proof.scaled.begin(), proof.scaled.end(), [&](const Subject& subject) {
        return subject.task == task && subject.kind == Kind::kOutput;
      });
      if (!said) throw f.Bad("says nothing of a task");
    }
  }
}

Proof MakeProof(const Reader& reader, Fields f) {
  Proof proof;
  if (f.Integer("version") != kVersion) {
    throw f.Bad("is of another version; this eptx reads version " + std::to_string(kVersion) + ": record it anew");
  }
  proof.generator = f.String("generator");
  proof.bundle = Object(f, "bundle");
  f.Count("columns", 1);
  proof.class_name = f.String("class_name");
  proof.modules = f.StringList("modules");
  proof.redrawn = f.Count("redrawn");
  for (const auto& item : Object(f, "unclear").items()) {
    if (!item.value().is_string()) throw f.Bad("unclear must name modules");
    proof.unclear.emplace(item.key(), item.value().get<std::string>());
  }
  for (const auto& item : Object(f, "folded").items()) {
    if (!item.value().is_number()) throw f.Bad("folded must hold numbers");
    proof.folded.emplace(item.key(), item.value().get<double>());
  }
  for (Fields& child : f.Children("batches")) {
    proof.batches.push_back(ReadBatch(reader, std::move(child), proof.batches.size()));
  }
  for (Fields& child : f.Children("experts")) proof.experts.push_back(ReadTable(reader, std::move(child)));
  Fields models = f.Child("models");
  proof.model = ReadObserved(reader, models, "model");
  if (models.Present("encoder")) {
    Fields encoder = models.Child("encoder");
    proof.encoder = ReadObserved(reader, encoder, "encoder");
    if (encoder.Present("encoder")) throw encoder.Bad("an encoder has no encoder");
    encoder.Done();
  }
  models.Done();
  proof.checks = ReadList(f, "checks", CheckCheck);
  proof.drops = ReadList(f, "drops", CheckDrop);
  proof.divergences = ReadList(f, "divergences", CheckDivergence);
  proof.noise = ReadSpreads(f, "noise");
  proof.scale = ReadSpreads(f, "scale", &proof.scaled);
  proof.effect = ReadSpreads(f, "effect");
  f.Done();
  CheckTasks(f, proof);
  return proof;
}

}  // namespace

Proof ParseProof(std::string_view file, const std::string& name, bool check_digest) {
  const Safetensors read = ReadSafetensors(file, name);
  if (check_digest) CheckDigest(read, name);
  const Json content = ParseJson(read.text, name);
  return MakeProof(Reader(name, read), Fields(content, name));
}

Proof ReadProof(const std::string& path) {
  const std::string name = OneLine(BaseName(path), 100);
  return ParseProof(ReadFile(path, kFileLimit), name, true);
}

}  // namespace eptx::core
