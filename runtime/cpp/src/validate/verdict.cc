#include "validate/verdict.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "validate/distance.h"

namespace eptx::core {
namespace {

constexpr char kHeads[] = "task_heads";

using Failure = std::pair<std::string, std::string>;  // where, and what is wrong there

// What is measured of one task.
class TaskMeasure {
 public:
  TaskMeasure(const std::string& task, const Manifest& manifest, const Proof& proof)
      : task_(task), proof_(proof), rounding_(Rounding(manifest)), typical_(Typical()) {}

  Measured Measure(Kind kind, const std::string& name, const Spreads& errors) const {
    const Subject subject{task_, kind, name};
    const Spread error = SpreadOf(errors, subject), noise = SpreadOf(proof_.noise, subject),
                 scale = SpreadOf(proof_.scale, subject), effect = SpreadOf(proof_.effect, subject);
    Measured measured{Ratio(error, noise, scale, rounding_, typical_), error.rms(), noise.rms(), scale.rms(), {}, {}};
    if (effect.count != 0) {
      measured.effect = effect.rms();
      measured.effect_ratio = Ratio(effect, noise, scale, rounding_, typical_);
    }
    const auto folded = proof_.folded.find(name);
    if (folded != proof_.folded.end()) measured.effect_ratio = folded->second;
    return measured;
  }

 private:
  // The noise relative to the values: the median over modules.
  double Typical() const {
    std::vector<double> relative;
    for (const std::string& module : proof_.model.order) {
      const Subject subject{task_, Kind::kModule, module};
      const double noise = SpreadOf(proof_.noise, subject).rms(), scale = SpreadOf(proof_.scale, subject).rms();
      if (scale != 0.0 && std::isfinite(noise) && std::isfinite(scale)) relative.push_back(noise / scale);
    }
    if (relative.empty()) return 0.0;
    std::sort(relative.begin(), relative.end());
    const size_t half = relative.size() / 2;
    return relative.size() % 2 == 1 ? relative[half] : (relative[half - 1] + relative[half]) / 2;
  }

  const std::string& task_;
  const Proof& proof_;
  const double rounding_, typical_;
};

std::string Times(const Measured& measured) {
  if (measured.ratio < kWorst) return ThreeDigits(measured.ratio) + " times the noise floor";
  if (!std::isfinite(measured.noise)) return "the reference itself is infinite or not a number there";
  if (!std::isfinite(measured.error)) return "it is infinite or not a number somewhere";
  return "its error is more than 1e30 times the noise floor";
}

// The first output that is wrong, and whether it is the heads: what they read is right.
std::optional<Failure> FailedOutput(const TaskReport& report, const TaskMeasure& measure, const Manifest& manifest,
                                    const Results& results) {
  const bool own_heads = std::any_of(manifest.tasks.begin(), manifest.tasks.end(),
                                     [](const Task& each) { return each.labels.has_value(); });
  for (const auto& [name, measured] : report.outputs) {
    const auto said = results.complaints.find({report.task, name});
    if (said != results.complaints.end()) return Failure(name, said->second);
    if (measured.ratio <= kLimit) continue;
    if (measure.Measure(Kind::kOutput, name, results.visible_error).ratio <= kLimit) {
      return Failure(name, Times(measured) + ", but only without further outputs: ONNX Runtime's optimizer changes it");
    }
    const bool others_fine =
        report.outputs.size() > 1 &&
        std::all_of(report.outputs.begin(), report.outputs.end(), [&output = name](const NamedMeasure& other) {
          return other.first == output || other.second.ratio <= kLimit;
        });
    return Failure(name == kLogits && own_heads && others_fine ? kHeads : name, Times(measured));
  }
  return {};
}

// The first module or output that is wrong, in the order of the graph.
std::optional<Failure> FailureOf(const TaskReport& report, const TaskMeasure& measure, const Manifest& manifest,
                                 const Results& results) {
  const auto broken = results.broken.find(report.task);
  if (broken != results.broken.end()) return Failure(kModelFile, broken->second);
  for (const auto& [name, measured] : report.modules) {
    const auto said = results.complaints.find({report.task, name});
    if (said != results.complaints.end()) return Failure(name, said->second);
    if (measured.ratio > kLimit) return Failure(name, Times(measured));
  }
  const auto inferred = results.complaints.find({report.task, std::string(kTaskIdUsed)});
  if (inferred != results.complaints.end()) return Failure(kTaskIdUsed, inferred->second);
  return FailedOutput(report, measure, manifest, results);
}

std::optional<Rounded> RoundedOf(const std::string& task, const Proof& proof, const Results& results) {
  Rounded rounded;
  for (const auto& [subject, error] : results.rounded_error) {
    if (subject.task != task) continue;
    const double scale = SpreadOf(proof.scale, subject).rms();
    rounded.relative[subject.name] = error.rms() / (scale == 0.0 ? 1.0 : scale);
  }
  if (rounded.relative.empty()) return {};
  rounded.agreement = results.rounded_answers.Agreement(task);
  rounded.greedy = results.rounded_answers.GreedyOf(task);
  return rounded;
}

}  // namespace

std::string ThreeDigits(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", number);
  return text;
}

const NamedMeasure& TaskReport::worst() const {
  const NamedMeasure* worst = nullptr;
  for (const auto* list : {&modules, &outputs}) {
    for (const NamedMeasure& each : *list) {
      if (worst == nullptr || each.second.ratio > worst->second.ratio) worst = &each;
    }
  }
  return *worst;  // a proof says something of every task
}

std::optional<double> TaskReport::effect_ratio() const {
  std::optional<double> largest;
  if (rows.compared == 0 || !adapted()) return largest;
  for (const auto* list : {&modules, &outputs}) {
    for (const auto& [name, measured] : *list) {
      if (measured.effect_ratio) largest = std::max(largest.value_or(*measured.effect_ratio), *measured.effect_ratio);
    }
  }
  return largest;
}

std::optional<std::string> TaskReport::undecided() const {
  if (failed_at) return {};
  if (tied_at) return "rounding decides which experts " + *tied_at + " uses";
  if (rows.compared == 0) return "rounding decides what a router chooses for every one of its rows";
  const auto effect = effect_ratio();
  if (effect && *effect <= kLimit) {
    return "the adapter's own effect is " + ThreeDigits(*effect) + " noise floors: too little to be seen";
  }
  return {};
}

std::string TaskReport::verdict() const { return failed_at ? "fail" : undecided() ? "undecided" : "pass"; }

std::string TaskReport::sentence() const {
  if (!failed_at) return "task " + task + " cannot be validated: " + undecided().value_or("");
  const bool module =
      std::any_of(modules.begin(), modules.end(), [&](const NamedMeasure& each) { return each.first == *failed_at; });
  return "task " + task + " fails at " + (module ? "first drifting module " : "") + *failed_at + ": " +
         reason.value_or("");
}

bool TaskReport::blocks() const {
  const std::string found = verdict();
  return found == "fail" || (found == "undecided" && task != kAutoTask);
}

TaskReport ReportOf(const std::string& task, const Manifest& manifest, const Proof& proof, const Results& results) {
  const TaskMeasure measure(task, manifest, proof);
  TaskReport report;
  report.task = task;
  const auto rows = results.rows.find(task);
  if (rows != results.rows.end()) report.rows = rows->second;
  for (const std::string& module : proof.model.order) {
    report.modules.emplace_back(module, measure.Measure(Kind::kModule, module, results.error));
  }
  for (const Subject& subject : proof.scaled) {
    if (subject.kind != Kind::kOutput || subject.task != task) continue;
    report.outputs.emplace_back(subject.name, measure.Measure(Kind::kOutput, subject.name, results.error));
  }
  const auto unclear = proof.unclear.find(task), tie = results.ties.find(task);
  if (unclear != proof.unclear.end()) {
    report.tied_at = unclear->second;
  } else if (tie != results.ties.end()) {
    report.tied_at = tie->second;
  } else if (const auto failure = FailureOf(report, measure, manifest, results)) {
    report.failed_at = failure->first;
    report.reason = failure->second;
  }
  report.agreement = results.answers.Agreement(task);
  report.greedy = results.answers.GreedyOf(task);
  report.rounded = RoundedOf(task, proof, results);
  return report;
}

}  // namespace eptx::core
