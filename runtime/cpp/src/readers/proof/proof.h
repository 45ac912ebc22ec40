// A proof: what the trained model gave for a bundle, sampled. docs/proof.md has the format.
//
// A proof may come from anywhere, as a bundle may. What is read here fits together: every sample has the size that its
// value's shape and the batch's mask give it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "eptx.h"
#include "readers/formats/json.h"
#include "readers/proof/places.h"

namespace eptx::core {

constexpr std::string_view kAnswerIds = "decoder_input_ids";  // the tokens of an encoder-decoder's answer
constexpr std::string_view kAutoTask = "auto", kBaseTask = "base";

// Numbers of each place of a value: of place n those of the features (n columns + j) modulo its width.
struct Sample {
  std::vector<int64_t> shape;  // of the whole value
  Places places;
  size_t columns = 0;
  std::vector<double> values;  // [places, columns]
  // Of logits that are not whole, the largest numbers of every place, the largest first: [places, most].
  size_t most = 0;
  std::vector<int64_t> largest;
  std::vector<double> largest_values;

  bool has_largest() const { return most != 0; }
};

struct ProvedInput {
  eptx_dtype dtype;
  std::vector<int64_t> shape;
  std::unique_ptr<std::byte[]> data;  // aligned for any type
  size_t bytes;
};

using Groups = std::map<std::string, std::vector<int64_t>>;  // module -> TuckA's group of every row, or of all of them
using Samples = std::map<std::string, Sample>;

// One call of the model, and what it should give.
struct ProvedBatch {
  std::string name;
  std::vector<std::string> tasks;  // of the rows
  std::map<std::string, ProvedInput> inputs;
  std::vector<std::string> input_order;
  std::optional<Mask> mask;
  std::optional<int64_t> prompt;  // of a model that generates: how many columns hold the prompts
  int64_t length = 0;             // columns of its tokens
  bool greedy = false, inside = true;
  std::vector<Groups> groups;  // of every call
  std::vector<bool> compared;  // of the rows
  std::vector<int64_t> ids;    // of the rows' tasks
  Samples outputs, inner, modules;

  size_t rows() const { return tasks.size(); }
};

// The size of a set of numbers: their count, the sum of their squares, the largest magnitude.
struct Spread {
  int64_t count = 0;
  double squares = 0.0, largest = 0.0;

  void Add(double number);  // NaN or infinity makes it infinite
  double rms() const;       // root mean square; 0 of no numbers
};

enum class Kind { kModule, kOutput };

struct Subject {
  std::string task;
  Kind kind;
  std::string name;

  bool operator<(const Subject& other) const {
    return std::tie(task, kind, name) < std::tie(other.task, other.kind, other.name);
  }
};

using Spreads = std::map<Subject, Spread>;

// The experts that one module's router chooses for every task.
struct ExpertTable {
  std::string module;
  size_t tasks = 0, chosen = 0;
  std::vector<int64_t> experts;  // [tasks, chosen], sorted
  std::vector<bool> tied;        // [tasks], whether the last of them won by a tie
};

// What makes the inside of a model visible.
struct Observed {
  std::string added;                             // bytes to put behind those of the model
  std::optional<std::string> float_activations;  // a model that rounds no activations to 8 bits, to put them behind
  std::vector<std::string> order;                // the modules as the graph computes them
  std::map<std::string, std::pair<std::string, std::string>> routes;  // module -> the values of its choice and weights
};

struct Proof {
  std::string generator;  // the eptx that recorded it
  Json bundle;            // eptx.json without what no validation reads
  std::vector<std::string> modules;
  std::string class_name;
  int64_t redrawn = 0;
  std::map<std::string, std::string> unclear;  // task -> a module where rounding decides which experts it uses
  std::map<std::string, double> folded;        // module -> the effect of its task's update, in noise floors
  std::vector<ProvedBatch> batches;
  std::vector<ExpertTable> experts;
  Observed model;
  std::optional<Observed> encoder;
  Json checks, drops, divergences;  // as the report has them; their fields are there
  Spreads noise, scale, effect;
  std::vector<Subject> scaled;  // the subjects of `scale`, in their order
};

// Reads a proof: the file, and its bytes without a look at the digest.
Proof ReadProof(const std::string& path);
Proof ParseProof(std::string_view file, const std::string& name, bool check_digest);

}  // namespace eptx::core
