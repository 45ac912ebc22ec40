// eptx.json: what a bundle says about itself. libeptx checks and keeps the part that it uses; of the other sections it
// checks the JSON type.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "eptx.h"
#include "ops/domain.h"
#include "readers/error.h"

namespace eptx::core {

constexpr char kManifestFile[] = "eptx.json";
constexpr char kModelFile[] = "model.onnx";
constexpr const char* kReportFiles[] = {"validation.json", "report.html", "calibration.json", "calibration.html"};

constexpr std::string_view kTaskId = "task_id";
constexpr std::string_view kTaskIdUsed = "task_id_used";
constexpr std::string_view kInputIds = "input_ids";
constexpr std::string_view kAttentionMask = "attention_mask";
constexpr std::string_view kTokenTypeIds = "token_type_ids";
constexpr std::string_view kLogits = "logits";  // the output whose first numbers are a row's answer
constexpr std::string_view kRouteGroup = "route_group";
constexpr std::string_view kRouteWeights = "route_weights";
constexpr std::string_view kUsed = "_used";  // ends the name of an output that reports what was used

// Prefixes of the inputs and outputs of a language model's cache.
constexpr std::string_view kPast = "past_key_values.";
constexpr std::string_view kPresent = "present.";

struct Task {
  std::string name;
  int64_t id;
  std::optional<int64_t> labels;
  std::optional<std::vector<std::string>> label_names;
  eptx_problem_type problem_type;
  std::optional<int64_t> vocab_size;  // number of its tokens, where the model has more
};

// A dimension: a size, or a name where the size varies.
struct Dimension {
  int64_t size = -1;
  std::string name;
  bool is_name = false;

  std::string Text() const { return is_name ? name : std::to_string(size); }
};

struct TensorSpec {
  std::string name;
  eptx_dtype dtype;
  std::vector<Dimension> shape;
};

// How the model generates text: the tokens that end an answer, and the token that pads shorter rows.
struct GenerationSpec {
  bool is_decoder;  // else model.onnx is the decoder of an encoder-decoder
  std::vector<int64_t> eos;
  int64_t pad;
  std::optional<int64_t> start;
};

// Where an adapted module's output is in a model: some features of a value.
struct ModulePlace {
  std::string output;
  int64_t first, last;          // features, the last exclusive
  std::vector<int64_t> unused;  // experts of the adapter that the model leaves out
};

using ModulePlaces = std::map<std::string, ModulePlace>;

// The encoder of an encoder-decoder.
struct EncoderSpec {
  std::string file;
  std::vector<TensorSpec> inputs, outputs;
  ModulePlaces modules;
};

struct FileEntry {
  uint64_t size;
  std::string sha256;
};

// The two numbers of a release of ONNX Runtime, such as 1.17.
using Release = std::pair<int64_t, int64_t>;

struct Manifest {
  std::string mode, method, model_type, precision, provider;
  std::vector<Task> tasks;
  std::vector<TensorSpec> inputs, outputs;
  bool task_inference = false;
  bool has_encoder = false;
  ModulePlaces modules;
  std::optional<EncoderSpec> encoder;
  std::optional<int64_t> operators;  // their version
  std::optional<Release> onnxruntime;  // the first that loads the model
  std::optional<std::string> routing;
  std::optional<GenerationSpec> generation;
  std::optional<int64_t> vocab_size, max_length;
  std::map<std::string, FileEntry> files;
};

// The index of a tensor; none where no tensor has the name.
std::optional<size_t> FindTensor(const std::vector<TensorSpec>& specs, std::string_view name);

// Whether a request has one task, and not one for each row: its texts and images are batches of their own.
bool TaskPerRequest(const Manifest& manifest);

// An error about the manifest.
Error ManifestError(const std::string& problem);

// Reads and checks the text of a manifest. An error names the field that is missing, unknown, of the wrong type or out
// of range, or the version that this eptx does not read.
Manifest ParseManifest(std::string_view text);

// The number of logits of a row, where the manifest gives it. The graph must agree.
std::optional<int64_t> LogitsWidth(const Manifest& manifest);

// Checks that fields agree with each other (part of ParseManifest); the second checks the fields about generation.
void CheckAgreement(const Manifest& manifest);
void CheckGeneration(const Manifest& manifest);

}  // namespace eptx::core
