#include "validate/report.h"

#include <algorithm>

#include "validate/distance.h"
#include "validate/quantizing.h"

namespace eptx::core {
namespace {

template <typename T>
Report OrNull(const std::optional<T>& value) {
  return value ? Report(*value) : Report();
}

Report ToJson(const std::optional<Greedy>& greedy) {
  if (!greedy) return {};
  Report first;
  if (greedy->first) {
    const Disagreement& d = *greedy->first;
    first = {{"batch", d.batch},         {"row", d.row},       {"token", d.token},
             {"reference", d.reference}, {"bundle", d.bundle}, {"margin", d.margin}};
  }
  return {{"tokens", greedy->tokens},
          {"agreement", static_cast<double>(greedy->equal) / static_cast<double>(greedy->tokens)},
          {"first_disagreement", first}};
}

Report ToJson(const std::vector<NamedMeasure>& measures) {
  Report all = Report::object();
  for (const auto& [name, m] : measures) {
    all[name] = {{"ratio", m.ratio}, {"error", m.error},           {"noise", m.noise},
                 {"scale", m.scale}, {"effect", OrNull(m.effect)}, {"effect_ratio", OrNull(m.effect_ratio)}};
  }
  return all;
}

Report ToJson(const std::optional<Rounded>& rounded) {
  if (!rounded) return {};
  return {{"relative_rms", rounded->relative},
          {"argmax_agreement", OrNull(rounded->agreement)},
          {"greedy", ToJson(rounded->greedy)}};
}

Report ToJson(const TaskReport& task) {
  const auto& [name, measured] = task.worst();
  return {{"task", task.task},
          {"adapted", task.adapted()},
          {"rows", task.rows.compared},
          {"rows_set_aside", task.rows.aside},
          {"modules", ToJson(task.modules)},
          {"outputs", ToJson(task.outputs)},
          {"tied_at", OrNull(task.tied_at)},
          {"failed_at", OrNull(task.failed_at)},
          {"reason", OrNull(task.reason)},
          {"argmax_agreement", OrNull(task.agreement)},
          {"metric", nullptr},  // a proof has no labelled rows
          {"greedy", ToJson(task.greedy)},
          {"rounded", ToJson(task.rounded)},
          {"verdict", task.verdict()},
          {"undecided", OrNull(task.undecided())},
          {"worst", {{"name", name}, {"ratio", measured.ratio}}},
          {"effect_ratio", OrNull(task.effect_ratio())}};
}

bool Passed(const BackendReport& backend) {
  return std::none_of(backend.tasks.begin(), backend.tasks.end(), [](const TaskReport& task) { return task.blocks(); });
}

std::string More(size_t count, const char* what) {
  return count > 1 ? " (and " + std::to_string(count - 1) + " more " + what + ")" : "";
}

// The first task that a run does not accept, as one line; "" if all are.
std::string FailedRun(const std::vector<BackendReport>& backends) {
  for (const BackendReport& backend : backends) {
    std::vector<const TaskReport*> bad;
    for (const TaskReport& task : backend.tasks) {
      if (task.blocks()) bad.push_back(&task);
    }
    if (bad.empty()) continue;
    std::stable_partition(bad.begin(), bad.end(), [](const TaskReport* task) { return task->failed_at.has_value(); });
    return "provider " + backend.name() + ": " + bad[0]->sentence() + More(bad.size(), "tasks");
  }
  return "";
}

std::vector<std::string> OverBudget(const Proof& proof) {
  std::vector<std::string> over;
  for (const Json& one : proof.drops) {
    if (DropIsWithin(one) == false) over.push_back(DropSentence(one));
  }
  for (const Json& one : proof.divergences) {
    if (!DivergenceIsWithin(one)) over.push_back(DivergenceSentence(one));
  }
  return over;
}

// The first failure, as one line; "" if there is none.
std::string Reason(const Found& found, const Proof& proof) {
  std::vector<const Report*> wrong;
  for (const Report& check : found.checks) {
    if (check["wrong"].is_string()) wrong.push_back(&check);
  }
  const std::string ran = FailedRun(found.backends);
  if (!wrong.empty()) {  // first, since a wrong table or field makes runs wrong
    const Report& first = *wrong[0];
    // a proof only sees that a file has changed; the run says what that has changed
    return first["name"].get<std::string>() + ": " + first["wrong"].get<std::string>() + More(wrong.size(), "checks") +
           (ran.empty() ? "" : "; " + ran);
  }
  if (!ran.empty()) return ran;
  const std::vector<std::string> over = OverBudget(proof);
  return over.empty() ? "" : over[0] + More(over.size(), "tasks");
}

Report Inputs(const Proof& proof) {
  Report inputs = Report::array();
  for (const ProvedBatch& batch : proof.batches) {
    const bool padded = batch.mask && std::count(batch.mask->kept.begin(), batch.mask->kept.end(), false) != 0;
    inputs.push_back({{"name", batch.name},
                      {"shape", batch.inputs.at(batch.input_order[0]).shape},
                      {"padded", padded},
                      {"prompt", OrNull(batch.prompt)}});
  }
  return inputs;
}

Report BundleFields(const Json& manifest) {
  Report fields;
  for (const char* key : {"mode", "method", "model_type", "precision", "provider", "routing"}) {
    fields[key] = manifest.value(key, Json());
  }
  fields["tasks"] = Report::array();
  for (const Json& task : manifest.at("tasks")) fields["tasks"].push_back(Report(task.at("name")));
  for (const char* key : {"fingerprints", "generator"}) fields[key] = manifest.value(key, Json());
  return fields;
}

Report Providers(const std::vector<BackendReport>& backends) {
  Report providers = Report::array();
  for (const BackendReport& backend : backends) {
    Report tasks = Report::array();
    for (const TaskReport& task : backend.tasks) tasks.push_back(ToJson(task));
    providers.push_back(
        {{"provider", "cpu"},
         {"operators", backend.operators},
         {"nodes", nullptr},  // which Python gives of other providers
         {"passed", Passed(backend)},
         {"tasks", tasks}});
  }
  return providers;
}

Report Drops(const Json& drops) {
  Report all = Report::array();
  for (const Json& one : drops) {
    Report drop = one.at("drop");
    drop["budget"] = one.value("budget", Json());
    drop["within"] = OrNull(DropIsWithin(one));
    all.push_back(drop);
  }
  return all;
}

Report Divergences(const Json& divergences) {
  Report all = Report::array();
  for (const Json& one : divergences) {
    Report divergence = one;
    divergence["within"] = DivergenceIsWithin(one);
    all.push_back(divergence);
  }
  return all;
}

}  // namespace

Report MakeReport(const Found& found, const Proof& proof) {
  const std::string reason = Reason(found, proof);
  Report seconds = Report::object();
  for (const auto& [stage, took] : found.seconds) seconds[stage] = took;
  return {{"schema_version", 1},
          {"passed", reason.empty()},
          {"reason", reason.empty() ? Report() : Report(reason)},
          {"limit", kLimit},
          {"proof", proof.generator},
          {"bundle", BundleFields(found.manifest)},
          {"inputs", Inputs(proof)},
          {"redrawn", proof.redrawn},
          {"frozen_from_live", nullptr},
          {"providers", Providers(found.backends)},
          {"drops", Drops(proof.drops)},
          {"divergences", Divergences(proof.divergences)},
          {"warnings", found.warnings},
          {"checks", found.checks},
          {"seconds", seconds}};
}

}  // namespace eptx::core
