// What must hold between the fields of a manifest.
#include <algorithm>
#include <set>

#include "readers/dtype.h"
#include "readers/error.h"
#include "readers/bundle/manifest.h"

namespace eptx::core {
namespace {

Error Bad(const std::string& problem) { return BundleError(std::string(kManifestFile) + ": " + problem); }

template <typename Items, typename Key>
void CheckUnique(const char* what, const Items& items, Key key) {
  if (items.empty()) throw Bad(std::string("names no ") + what);
  std::set<decltype(key(items[0]))> seen;
  for (const auto& item : items) {
    if (!seen.insert(key(item)).second) throw Bad(std::string("a ") + what + " appears twice");
  }
}

void CheckTensors(const Manifest& m) {
  const auto check = [](const TensorSpec& tensor) {
    if ((tensor.name == kTaskId || tensor.name == kTaskIdUsed) &&
        (!IsInteger(tensor.dtype) || tensor.shape.size() != 1)) {
      throw Bad(tensor.name + " is not one integer for each row");
    }
  };
  std::for_each(m.inputs.begin(), m.inputs.end(), check);
  std::for_each(m.outputs.begin(), m.outputs.end(), check);
  const auto scalar = [](const TensorSpec& t) { return t.shape.empty(); };
  const auto is_task = [](const TensorSpec& t) { return t.name == kTaskId; };
  if (std::any_of(m.inputs.begin(), m.inputs.end(), scalar) || std::all_of(m.inputs.begin(), m.inputs.end(), is_task)) {
    throw Bad("the inputs have no batch");
  }
}

// A task's labels are logits that there are.
void CheckLabels(const Manifest& m) {
  const auto is_logits = [](const TensorSpec& tensor) { return tensor.name == kLogitsOutput; };
  const bool has = std::any_of(m.outputs.begin(), m.outputs.end(), is_logits);
  const std::optional<int64_t> width = LogitsWidth(m);
  for (const Task& task : m.tasks) {
    const int64_t labels = task.labels.value_or(0);
    if (labels != 0 && !has) throw Bad("task " + task.name + " has labels; the model has no output logits");
    if (width && labels > *width) {
      throw Bad("task " + task.name + " has " + std::to_string(labels) + " labels; a row has " +
                std::to_string(*width) + " logits");
    }
  }
}

}  // namespace

std::optional<int64_t> LogitsWidth(const Manifest& m) {
  for (const TensorSpec& tensor : m.outputs) {
    if (tensor.name != kLogitsOutput) continue;
    if (tensor.shape.empty() || tensor.shape.back().is_name) return {};
    return tensor.shape.back().size;
  }
  return {};
}

void CheckAgreement(const Manifest& m) {
  CheckUnique("task", m.tasks, [](const Task& t) { return t.name; });
  CheckUnique("task id", m.tasks, [](const Task& t) { return t.id; });
  CheckUnique("input", m.inputs, [](const TensorSpec& t) { return t.name; });
  CheckUnique("output", m.outputs, [](const TensorSpec& t) { return t.name; });
  CheckTensors(m);
  if (m.files.count(kModelFile) == 0) throw Bad(std::string("does not list ") + kModelFile);
  if (m.mode == "static" && (m.operators || m.tasks.size() != 1)) {
    throw Bad("a static bundle has one task and no custom operators");
  }
  if (m.task_inference && (m.mode != "dynamic" || m.method != "ept")) {
    throw Bad("only a dynamic EPT bundle can infer the task");
  }
  const bool has_task_id =
      std::any_of(m.inputs.begin(), m.inputs.end(), [](const TensorSpec& t) { return t.name == kTaskId; });
  if (has_task_id && m.mode == "static") throw Bad("a static bundle has no input task_id");
  if (!has_task_id && (m.mode == "conditioned" || m.task_inference)) throw Bad("the input task_id is missing");
  CheckLabels(m);
  CheckGeneration(m);
}

}  // namespace eptx::core
