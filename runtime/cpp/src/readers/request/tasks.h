// Which task each row of a request is for.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "readers/bundle/manifest.h"
#include "readers/error.h"
#include "readers/request/feeds.h"
#include "readers/request/prompts.h"

namespace eptx::core {

// Turns task names into the graph input `task_id` and back. The manifest must outlive it.
class TaskChooser {
 public:
  explicit TaskChooser(const Manifest& manifest);

  // Sets `task_id` [batch] from the task names of a request; -1 lets the model infer the task. Where the request gives
  // `task_id` itself, checks its shape. Throws where a task is unknown or missing, or their number is wrong.
  void Choose(const eptx_request& request, Feeds& feeds) const;

  // Checks the values of a `task_id` that the request gives.
  void CheckIds(const Feeds& feeds) const;

  // Refuses tokens that the model has and a row's task has not: they are what another task's training added. Tokens
  // that the mask hides do not count. For ids that are checked.
  void CheckTokens(const Feeds& feeds) const;
  void CheckTokens(const Prompts& prompts, const Feeds& feeds) const;

  // The index of each row's task from ids [batch]; -1 where no task has the id. 0 where the model takes no ids.
  std::vector<int> Rows(const Feeds& feeds, const TensorView* used) const;

 private:
  const Task* TaskAt(const Feeds& feeds, size_t row) const;  // null where the model infers it
  std::string Default() const;
  std::string Ids() const;  // "0 to 7"; each id, where some between are missing
  int64_t Id(const std::string& name) const;
  Error Unknown(const std::string& name) const;

  const Manifest& manifest_;
  std::map<std::string, const Task*> by_name_;
  std::map<int64_t, int> by_id_;
  int input_ = -1;      // the index of `task_id`
  bool fewer_ = false;  // whether a task has fewer tokens than the model
};

}  // namespace eptx::core
