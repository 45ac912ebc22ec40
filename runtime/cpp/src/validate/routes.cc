#include "validate/routes.h"

#include <algorithm>
#include <vector>

#include "readers/error.h"

namespace eptx::core {
namespace {

// The numbers of one row, of a value that has a row for each, or one for all.
const double* RowOf(const Array& array, size_t row, size_t rows) {
  const size_t has = array.shape.empty() ? 0 : static_cast<size_t>(array.shape[0]);
  if (has != rows && has != 1) throw BundleError("a router does not choose for each row");
  const size_t width = has == 0 ? 0 : array.data.size() / has;
  return array.data.data() + (has == 1 ? 0 : row) * width;
}

std::string Listed(const std::vector<int64_t>& experts) {
  std::string text;
  for (const int64_t expert : experts) text += (text.empty() ? "" : " and ") + std::to_string(expert);
  return text;
}

void CheckModule(const ExpertTable& table, const Array& choice, const ProvedBatch& batch, Results& results) {
  const auto width = static_cast<size_t>(choice.last());
  for (size_t row = 0; row < batch.rows(); ++row) {
    const int64_t id = batch.ids[row];
    const std::string& task = batch.tasks[row];
    if (id < 0 || id >= static_cast<int64_t>(table.tasks) || !batch.compared[row] || task == kAutoTask) continue;
    const double* const numbers = RowOf(choice, row, batch.rows());
    std::vector<int64_t> found(numbers, numbers + width);
    std::sort(found.begin(), found.end());
    const auto first = table.experts.begin() + id * static_cast<int64_t>(table.chosen);
    std::vector<int64_t> wanted(first, first + static_cast<int64_t>(table.chosen));
    if (found == wanted) continue;
    if (table.tied[static_cast<size_t>(id)]) {
      results.ties.emplace(task, table.module);
      continue;
    }
    std::sort(wanted.begin(), wanted.end());
    results.complaints.emplace(std::pair(task, table.module), "its router chooses experts " + Listed(found) +
                                                                  "; the reference chooses " + Listed(wanted));
  }
}

}  // namespace

void CheckTasks(const ProvedBatch& batch, const Arrays& outputs, Results& results) {
  const auto used = outputs.find(std::string(kTaskIdUsed));
  if (used == outputs.end()) return;
  for (size_t row = 0; row < batch.rows(); ++row) {
    if (batch.tasks[row] != kAutoTask || !batch.compared[row]) continue;
    const auto found = static_cast<int64_t>(*RowOf(used->second, row, batch.rows()));
    if (found == batch.ids[row]) continue;
    results.complaints.emplace(
        std::pair(std::string(kAutoTask), std::string(kTaskIdUsed)),
        "infers task " + std::to_string(found) + "; the reference infers " + std::to_string(batch.ids[row]));
  }
}

void CheckExperts(const Proof& proof, const ProvedBatch& batch, const Observation& seen, Results& results) {
  for (const Arrays& routes : seen.routes) {
    for (const ExpertTable& table : proof.experts) {
      const auto route = routes.find(table.module);
      if (route == routes.end() || route->second.rank() != 2) continue;  // TuckA's are [rows]
      CheckModule(table, route->second, batch, results);
    }
  }
}

void CheckGroups(const ProvedBatch& batch, const Observation& seen, Results& results) {
  for (size_t call = 0; call < std::min(seen.routes.size(), batch.groups.size()); ++call) {
    for (const auto& [module, groups] : batch.groups[call]) {
      const auto route = seen.routes[call].find(module);
      if (route == seen.routes[call].end() || route->second.rank() != 1) continue;
      for (size_t row = 0; row < batch.rows(); ++row) {
        const auto found = static_cast<int64_t>(*RowOf(route->second, row, batch.rows()));
        const int64_t wanted = groups[groups.size() == 1 ? 0 : row];
        if (found == wanted || wanted < 0 || !batch.compared[row] || batch.tasks[row] == kBaseTask) continue;
        results.complaints.emplace(
            std::pair(batch.tasks[row], module),
            "its route is group " + std::to_string(found) + "; the reference's is group " + std::to_string(wanted));
      }
    }
  }
}

}  // namespace eptx::core
