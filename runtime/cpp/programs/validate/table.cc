#include "table.h"

#include <algorithm>
#include <cstdio>
#include <vector>

namespace eptx::program {
namespace {

using Cells = std::vector<std::string>;

std::string Format(const char* format, double number) {
  char text[64];
  std::snprintf(text, sizeof text, format, number);
  return text;
}

// A number, of which null stands for an infinite one.
double Number(const Report& value) { return value.is_number() ? value.get<double>() : HUGE_VAL; }
std::string Text(const Report& value) { return value.get<std::string>(); }

// What a number is in the table; "-" where it was not measured.
std::string Cell(const Report& value, const char* format, double times = 1) {
  return value.is_null() ? "-" : Format(format, times * value.get<double>());
}

// How many characters a text of UTF-8 has.
size_t Width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// The lines of a table whose columns are as wide as their widest cell.
std::string Aligned(const std::vector<Cells>& rows) {
  std::vector<size_t> widths(rows[0].size());
  for (const Cells& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string lines;
  for (const Cells& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += (i == 0 ? "" : "  ") + row[i] + std::string(widths[i] - Width(row[i]), ' ');
    }
    lines += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return lines;
}

// The module or output with the largest ratio.
const Report& Worst(const Report& task) {
  const std::string name = Text(task["worst"]["name"]);
  return task["modules"].contains(name) ? task["modules"][name] : task["outputs"][name];
}

// What is wrong with a task, or why nothing is known of it.
std::string Sentence(const Report& task) {
  if (task["failed_at"].is_null()) {
    return "task " + Text(task["task"]) + " cannot be validated: " + Text(task["undecided"]);
  }
  const std::string at = Text(task["failed_at"]);
  return "task " + Text(task["task"]) + " fails at " + (task["modules"].contains(at) ? "first drifting module " : "") +
         at + ": " + Text(task["reason"]);
}

Cells Row(const Report& task, bool generates) {
  const Report& worst = Worst(task);
  const double scale = Number(worst["scale"]);
  Cells cells = {Text(task["task"]), Format("%.3g", Number(worst["ratio"])),
                 Format("%.1e", scale == 0 ? 0.0 : Number(worst["noise"]) / scale), Cell(task["effect_ratio"], "%.3g"),
                 Cell(task["argmax_agreement"], "%.1f%%", 100)};
  if (generates) {
    const Report& greedy = task["greedy"];
    cells.push_back(greedy.is_null() ? "-"
                                     : Format("%.1f%% of ", 100 * Number(greedy["agreement"])) +
                                           std::to_string(greedy["tokens"].get<int64_t>()));
  } else {
    cells.push_back("-");
  }
  const auto aside = task["rows_set_aside"].get<int64_t>();
  cells.push_back(std::to_string(task["rows"].get<int64_t>()) +
                  (aside == 0 ? "" : " (+" + std::to_string(aside) + " tied)"));
  cells.push_back(Text(task["verdict"]));
  return cells;
}

// What counts for no verdict: where greedy tokens first differ, and what rounded activations change.
std::string Notes(const Report& task) {
  std::string lines;
  const std::string name = Text(task["task"]);
  if (!task["greedy"].is_null() && !task["greedy"]["first_disagreement"].is_null()) {
    const Report& first = task["greedy"]["first_disagreement"];
    lines += name + ": the first greedy token that differs is number " +
             std::to_string(first["token"].get<int64_t>() + 1) + " of " + Text(first["batch"]) + ", row " +
             std::to_string(first["row"].get<int64_t>()) + ": the reference prefers its own by " +
             Format("%.2g", Number(first["margin"])) + "\n";
  }
  if (!task["rounded"].is_null()) {
    double most = 0;
    for (const Report& relative : task["rounded"]["relative_rms"]) most = std::max(most, Number(relative));
    const Report& greedy = task["rounded"]["greedy"];
    lines +=
        name + ": activations of 8 bits, as shipped, change the outputs by " + Format("%.2g", most) + " of their size" +
        (greedy.is_null() ? "" : Format(", greedy tokens agree in %.1f%%", 100 * Number(greedy["agreement"]))) + "\n";
  }
  return lines;
}

std::string NameOf(const Report& provider) {
  const std::string operators = Text(provider["operators"]);
  return Text(provider["provider"]) + (operators == "standard" ? "" : ", " + operators);
}

std::string ProviderText(const Report& provider) {
  const Report& tasks = provider["tasks"];
  const bool generates =
      std::any_of(tasks.begin(), tasks.end(), [](const Report& task) { return !task["greedy"].is_null(); });
  std::vector<Cells> rows = {{"task", "error / noise", "noise floor", "adapter / noise", "argmax",
                              generates ? "greedy" : "metric", "rows", "verdict"}};
  for (const Report& task : tasks) rows.push_back(Row(task, generates));
  std::string text = NameOf(provider) + ":\n" + Aligned(rows);
  for (const Report& task : tasks) text += Notes(task);
  for (const Report& task : tasks) {
    if (task["verdict"] != "pass") text += Text(task["verdict"]) + ": " + Sentence(task) + "\n";
  }
  return text;
}

std::string Verdict(const Report& provider, double limit) {
  const Report* worst = nullptr;
  for (const Report& task : provider["tasks"]) {
    if (worst == nullptr || Number(task["worst"]["ratio"]) > Number((*worst)["worst"]["ratio"])) worst = &task;
  }
  return NameOf(provider) + ": " + (provider["passed"].get<bool>() ? "passed" : "failed") + "; worst " +
         Format("%.3g", Number((*worst)["worst"]["ratio"])) + " of " + Format("%g", limit) + " noise floors, task " +
         Text((*worst)["task"]) + ", " + Text((*worst)["worst"]["name"]) + "\n";
}

std::string Checks(const Report& checks) {
  std::string text;
  size_t compared = 0, ran = 0, unchecked = 0;
  for (const Report& check : checks) {
    if (!check["wrong"].is_null()) text += "fail: " + Text(check["name"]) + ": " + Text(check["wrong"]) + "\n";
  }
  for (const Report& check : checks) {
    const std::string how = Text(check["how"]);
    ++(how == "compared" ? compared : how == "run" ? ran : unchecked);
    if (how != "unchecked") continue;
    text += "not checked: " + Text(check["name"]) +
            (check.contains("why") && check["why"].is_string() ? ": " + Text(check["why"]) : "") + "\n";
  }
  return text + "checks: " + std::to_string(compared) + " compared, " + std::to_string(ran) + " run, " +
         std::to_string(unchecked) + " unchecked\n";
}

// What quantizing costs, as it was measured where the proof was recorded.
std::string Drops(const Report& drops) {
  if (drops.empty()) return "";
  std::vector<Cells> rows = {{"task", "metric", "fp32", "bundle", "points lost", "95 %", "budget", "rows", "verdict"}};
  double points = 0;
  for (const Report& drop : drops) {
    points += Number(drop["points"]);
    rows.push_back({Text(drop["task"]), Text(drop["metric"]) + (drop["labelled"].get<bool>() ? "" : " with fp32"),
                    Format("%.3f", Number(drop["reference"])), Format("%.3f", Number(drop["found"])),
                    Format("%.2f", Number(drop["points"])),
                    Format("%.1f to ", Number(drop["low"])) + Format("%.1f", Number(drop["high"])),
                    Cell(drop["budget"], "%g"), Format("%.0f", Number(drop["rows"])),
                    drop["within"].is_null()     ? "-"
                    : drop["within"].get<bool>() ? "pass"
                                                 : "fail"});
  }
  return Aligned(rows) + "quantizing loses " + Format("%.2f", points / static_cast<double>(drops.size())) +
         " points on average of " + std::to_string(drops.size()) + " tasks\n";
}

std::string Took(const Report& seconds) {
  double all = 0;
  std::string stages;
  for (const auto& stage : seconds.items()) {
    all += Number(stage.value());
    stages += (stages.empty() ? "" : ", ") + stage.key() + Format(" %.1f", Number(stage.value()));
  }
  return "took " + Format("%.1f s: ", all) + stages + "\n";
}

}  // namespace

std::string ReportText(const Report& report) {
  std::string text;
  for (const Report& provider : report["providers"]) text += ProviderText(provider);
  text += Drops(report["drops"]) + Checks(report["checks"]) + Took(report["seconds"]);
  for (const Report& provider : report["providers"]) text += Verdict(provider, Number(report["limit"]));
  return text;
}

}  // namespace eptx::program
