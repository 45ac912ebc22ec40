// eptx.json: what a bundle says about itself. All of it is checked; what a runtime needs of it is kept.
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
constexpr std::string_view kUsed = "_used";  // ends the name of the output that says what was used

// Inputs and outputs of a language model's cache, by what comes after the prefix.
constexpr std::string_view kPast = "past_key_values.";
constexpr std::string_view kPresent = "present.";

struct Task {
  std::string name;
  int64_t id;
  std::optional<int64_t> labels;
  std::optional<std::vector<std::string>> label_names;
  eptx_problem_type problem_type;
};

// A dimension is a number, or a name where it varies.
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

// How the model generates text: the tokens that end an answer, and the one that fills shorter rows.
struct GenerationSpec {
  bool is_decoder;  // else model.onnx is the decoder of an encoder-decoder
  std::vector<int64_t> eos;
  int64_t pad;
  std::optional<int64_t> start;
};

struct FileEntry {
  uint64_t size;
  std::string sha256;
};

struct Manifest {
  std::string mode, method, model_type, precision, provider;
  std::vector<Task> tasks;
  std::vector<TensorSpec> inputs, outputs;
  bool task_inference = false;
  bool has_encoder = false;
  std::optional<int64_t> operators;  // their version
  std::optional<std::string> routing;
  std::optional<GenerationSpec> generation;
  std::optional<int64_t> vocab_size, max_length;
  std::map<std::string, FileEntry> files;
};

// The index of a tensor; none where no tensor has the name.
std::optional<size_t> FindTensor(const std::vector<TensorSpec>& specs, std::string_view name);

// An error about the manifest.
Error ManifestError(const std::string& problem);

// Reads and checks the text of a manifest; an error says which field is missing, unknown, of the wrong type or out of
// range, or that the versions are not ones that this eptx reads.
Manifest ParseManifest(std::string_view text);

// How many logits a row has, where the manifest says: the graph is held to it.
std::optional<int64_t> LogitsWidth(const Manifest& manifest);

// What must hold between fields (part of ParseManifest), and of that what concerns generation.
void CheckAgreement(const Manifest& manifest);
void CheckGeneration(const Manifest& manifest);

}  // namespace eptx::core
