// Checks that the fields of a manifest agree with each other.
#include <algorithm>
#include <set>

#include "readers/bundle/manifest.h"
#include "readers/dtype.h"

namespace eptx::core {
namespace {

template <typename Items, typename Key>
void CheckUnique(const char* what, const Items& items, Key key) {
  if (items.empty()) throw ManifestError(std::string("names no ") + what);
  std::set<decltype(key(items[0]))> seen;
  for (const auto& item : items) {
    if (!seen.insert(key(item)).second) throw ManifestError(std::string("a ") + what + " appears twice");
  }
}

void CheckTensors(const Manifest& m) {
  const auto check = [](const TensorSpec& tensor) {
    if ((tensor.name == kTaskId || tensor.name == kTaskIdUsed) &&
        (!IsInteger(tensor.dtype) || tensor.shape.size() != 1)) {
      throw ManifestError(tensor.name + " is not one integer for each row");
    }
  };
  std::for_each(m.inputs.begin(), m.inputs.end(), check);
  std::for_each(m.outputs.begin(), m.outputs.end(), check);
  const auto scalar = [](const TensorSpec& t) { return t.shape.empty(); };
  const auto is_task = [](const TensorSpec& t) { return t.name == kTaskId; };
  if (std::any_of(m.inputs.begin(), m.inputs.end(), scalar) || std::all_of(m.inputs.begin(), m.inputs.end(), is_task)) {
    throw ManifestError("the inputs have no batch");
  }
}

// A task has no more labels than a row has logits.
void CheckLabels(const Manifest& m) {
  const std::optional<int64_t> width = LogitsWidth(m);
  for (const Task& task : m.tasks) {
    const int64_t labels = task.labels.value_or(0);
    if (labels != 0 && !FindTensor(m.outputs, kLogits))
      throw ManifestError("task " + task.name + " has labels; the model has no output logits");
    if (width && labels > *width) {
      throw ManifestError("task " + task.name + " has " + std::to_string(labels) + " labels; a row has " +
                          std::to_string(*width) + " logits");
    }
  }
}

// No task has more tokens than the model.
void CheckVocabularies(const Manifest& m) {
  for (const Task& task : m.tasks) {
    if (task.vocab_size && m.vocab_size && *task.vocab_size > *m.vocab_size) {
      throw ManifestError("task " + task.name + " has " + std::to_string(*task.vocab_size) + " tokens; the model has " +
                          std::to_string(*m.vocab_size));
    }
  }
}

}  // namespace

std::optional<int64_t> LogitsWidth(const Manifest& m) {
  const auto logits = FindTensor(m.outputs, kLogits);
  if (!logits) return {};
  const std::vector<Dimension>& shape = m.outputs[*logits].shape;
  if (shape.empty() || shape.back().is_name) return {};
  return shape.back().size;
}

void CheckAgreement(const Manifest& m) {
  CheckUnique("task", m.tasks, [](const Task& t) { return t.name; });
  CheckUnique("task id", m.tasks, [](const Task& t) { return t.id; });
  CheckUnique("input", m.inputs, [](const TensorSpec& t) { return t.name; });
  CheckUnique("output", m.outputs, [](const TensorSpec& t) { return t.name; });
  CheckTensors(m);
  if (m.files.count(kModelFile) == 0) throw ManifestError(std::string("does not list ") + kModelFile);
  if (m.mode == "static" && (m.operators || m.tasks.size() != 1)) {
    throw ManifestError("a static bundle has one task and no custom operators");
  }
  if (m.task_inference && (m.mode != "dynamic" || m.routing)) {
    throw ManifestError("only a dynamic bundle without a routing can infer the task");
  }
  const bool has_task_id = FindTensor(m.inputs, kTaskId).has_value();
  if (has_task_id && m.mode == "static") throw ManifestError("a static bundle has no input task_id");
  if (!has_task_id && (m.mode == "conditioned" || m.task_inference))
    throw ManifestError("the input task_id is missing");
  CheckLabels(m);
  CheckVocabularies(m);
  CheckGeneration(m);
}

}  // namespace eptx::core
