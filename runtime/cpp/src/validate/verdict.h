// From the results on one backend to the report of each task.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "readers/bundle/manifest.h"
#include "readers/proof/proof.h"
#include "validate/results.h"

namespace eptx::core {

// One module or output of one task.
struct Measured {
  double ratio;                // its error as a multiple of the noise floor
  double error, noise, scale;  // root mean squares: of bundle less float64, of own type less float64, of the values
  // Of adapter on less adapter off: the root mean square, and what a bundle without the adapter would score. None where
  // it was not measured.
  std::optional<double> effect, effect_ratio;
};

using NamedMeasure = std::pair<std::string, Measured>;

// How far a bundle that rounds activations to 8 bits is from the reference, as it is shipped.
struct Rounded {
  std::map<std::string, double> relative;  // output -> root mean square of the error over that of the values
  std::optional<double> agreement;
  std::optional<Greedy> greedy;
};

struct TaskReport {
  std::string task;
  Results::Rows rows;
  std::vector<NamedMeasure> modules;  // as the graph computes them
  std::vector<NamedMeasure> outputs;  // of the model as it is shipped
  std::optional<std::string> tied_at, failed_at, reason;
  std::optional<double> agreement;  // the share of rows (of a language model: positions) with the same answer
  std::optional<Greedy> greedy;     // of a generator
  std::optional<Rounded> rounded;   // all else is measured without rounding; it does not count for the verdict

  bool adapted() const { return task != kBaseTask; }
  const NamedMeasure& worst() const;             // the module or output with the largest ratio
  std::optional<double> effect_ratio() const;    // the adapter's largest effect, in noise floors
  std::optional<std::string> undecided() const;  // why a pass would say nothing; none if it would not
  std::string verdict() const;                   // "pass", "fail" or "undecided"
  std::string sentence() const;                  // what is wrong with the task, or why nothing is known of it
  bool blocks() const;                           // whether the bundle is not accepted because of it
};

TaskReport ReportOf(const std::string& task, const Manifest& manifest, const Proof& proof, const Results& results);

// A number as text, with three digits.
std::string ThreeDigits(double number);

}  // namespace eptx::core
