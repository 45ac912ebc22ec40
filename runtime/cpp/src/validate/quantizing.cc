#include "validate/quantizing.h"

#include <cstdio>

namespace eptx::core {
namespace {

constexpr double kDefaultPoints = 10.0;  // the budget of a task with labelled rows that has no other

std::string Format(const char* format, double number) {
  char text[64];
  std::snprintf(text, sizeof text, format, number);
  return text;
}

double Number(const Json& object, const char* key) { return object.at(key).get<double>(); }
std::string Text(const Json& object, const char* key) { return object.at(key).get<std::string>(); }
bool HasBudget(const Json& one) { return one.contains("budget") && !one["budget"].is_null(); }

}  // namespace

std::optional<bool> DropIsWithin(const Json& one) {
  const Json& drop = one.at("drop");
  if (HasBudget(one)) return Number(drop, "points") <= Number(one, "budget");
  if (!drop.at("labelled").get<bool>()) return {};
  return Number(drop, "low") <= kDefaultPoints;
}

std::string DropSentence(const Json& one) {
  const Json& drop = one.at("drop");
  const bool labelled = drop.at("labelled").get<bool>();
  std::string budget;
  if (HasBudget(one)) {
    budget = "; the budget is " + Format("%g", Number(one, "budget"));
  } else if (DropIsWithin(one) == false) {
    budget = "; without a budget the interval may begin at " + Format("%g", kDefaultPoints);
  }
  return Text(drop, "task") + ": " + Text(drop, "metric") + (labelled ? "" : " (against the answers of fp32)") +
         " fell " + Format("%.2f", Number(drop, "points")) + " points (95 %: " + Format("%.1f", Number(drop, "low")) +
         " to " + Format("%.1f", Number(drop, "high")) + ") from " + Format("%.3f", Number(drop, "reference")) +
         " to " + Format("%.3f", Number(drop, "found")) + budget;
}

bool DivergenceIsWithin(const Json& one) { return Number(one, "value") <= Number(one, "limit"); }

std::string DivergenceSentence(const Json& one) {
  std::string size = Format("%.3g", Number(one, "value")) + " times its size";
  if (one.at("measure") == "tokens") {
    const bool has = one.contains("disagreement") && one["disagreement"].is_number();
    size = Format("%.3g", Number(one, "value")) + " nats a token, and " +
           Format("%.1f", has ? 100 * Number(one, "disagreement") : 0.0) + "% of the likeliest tokens";
  }
  return Text(one, "task") + ": quantizing changes " + Text(one, "output") + " by " + size +
         "; without rows or a budget the limit is " + Format("%g", Number(one, "limit")) +
         " (--data and --max-drop give another)";
}

}  // namespace eptx::core
