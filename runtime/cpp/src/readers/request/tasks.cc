#include "readers/request/tasks.h"

#include <algorithm>

#include "readers/dtype.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

constexpr char kAuto[] = "auto";
constexpr char kBase[] = "base";
constexpr int64_t kInfer = -1;

int64_t IntegerAt(const TensorView& tensor, size_t flat) {
  return tensor.dtype == EPTX_INT32 ? static_cast<const int32_t*>(tensor.data)[flat]
                                    : static_cast<const int64_t*>(tensor.data)[flat];
}

// Whether a mask of any type hides a place: all its bytes are 0.
bool IsHidden(const TensorView& mask, size_t flat) {
  const size_t size = DtypeSize(mask.dtype);
  const auto* const bytes = static_cast<const unsigned char*>(mask.data) + flat * size;
  return std::all_of(bytes, bytes + size, [](unsigned char byte) { return byte == 0; });
}

Error LacksToken(const std::string& what, int64_t token, const Task& task) {
  return RequestError(what + " is " + std::to_string(token) + "; task " + task.name + " has token ids 0 to " +
                      std::to_string(*task.vocab_size - 1));
}

void SetId(std::byte* ids, eptx_dtype dtype, size_t row, int64_t id) {
  if (dtype == EPTX_INT32) {
    reinterpret_cast<int32_t*>(ids)[row] = static_cast<int32_t>(id);
  } else {
    reinterpret_cast<int64_t*>(ids)[row] = id;
  }
}

}  // namespace

TaskChooser::TaskChooser(const Manifest& manifest) : manifest_(manifest) {
  for (const Task& task : manifest.tasks) {
    by_name_[task.name] = &task;
    by_id_[task.id] = static_cast<int>(&task - manifest.tasks.data());
    fewer_ = fewer_ || task.vocab_size.has_value();
  }
  if (const auto input = FindTensor(manifest.inputs, kTaskId)) input_ = static_cast<int>(*input);
}

void TaskChooser::Choose(const eptx_request& request, Feeds& feeds) const {
  if (feeds.has_task_id) {
    if (request.task_count != 0) throw RequestError("give either task or the input task_id, not both");
    const TensorView& ids = feeds.tensors[static_cast<size_t>(input_)];
    if (ids.shape[0] != feeds.batch) {
      throw RequestError("input task_id has shape " + ShapeText(ids.shape, ids.rank) + "; the batch is " +
                         std::to_string(feeds.batch));
    }
    return;
  }
  const auto batch = static_cast<size_t>(feeds.batch);
  if (TaskPerRequest(manifest_) && request.task_count > 1) {
    throw RequestError(std::to_string(request.task_count) +
                       " tasks; this bundle takes one, for all texts and images of a request");
  }
  if (request.task_count > 1 && request.task_count != batch) {
    throw RequestError(std::to_string(request.task_count) + " tasks for a batch of " + std::to_string(batch) +
                       "; give one name, or one per row");
  }
  std::vector<int64_t> chosen;
  for (size_t i = 0; i < request.task_count; ++i) {
    if (request.tasks[i] == nullptr) throw UsageError("a task is NULL");
    chosen.push_back(Id(request.tasks[i]));
  }
  if (chosen.empty()) chosen.push_back(Id(Default()));
  if (input_ < 0) return;
  const TensorSpec& spec = manifest_.inputs[static_cast<size_t>(input_)];
  const size_t bytes =
      batch * DtypeSize(spec.dtype) + sizeof(int64_t);  // ids and shape; cannot overflow, as the rows are in memory
  std::byte* data = feeds.Own(bytes);
  auto* shape = reinterpret_cast<int64_t*>(data);
  std::byte* ids = data + sizeof(int64_t);
  *shape = feeds.batch;
  for (size_t row = 0; row < batch; ++row) SetId(ids, spec.dtype, row, chosen.size() == 1 ? chosen[0] : chosen[row]);
  feeds.tensors[static_cast<size_t>(input_)] = {spec.dtype, 1, shape, ids, bytes - sizeof(int64_t)};
}

void TaskChooser::CheckIds(const Feeds& feeds) const {
  if (!feeds.has_task_id) return;
  const TensorView& ids = feeds.tensors[static_cast<size_t>(input_)];
  for (size_t row = 0; row < ids.count(); ++row) {
    const int64_t id = IntegerAt(ids, row);
    if (by_id_.count(id) != 0 || (id == kInfer && manifest_.task_inference)) continue;
    throw RequestError("input task_id[" + std::to_string(row) + "] is " + std::to_string(id) + "; this bundle has " + Ids());
  }
}

const Task* TaskChooser::TaskAt(const Feeds& feeds, size_t row) const {
  if (input_ < 0) return &manifest_.tasks[0];
  const TensorView& ids = feeds.tensors[static_cast<size_t>(input_)];
  const auto found = by_id_.find(IntegerAt(ids, row < ids.count() ? row : 0));
  return found == by_id_.end() ? nullptr : &manifest_.tasks[static_cast<size_t>(found->second)];
}

void TaskChooser::CheckTokens(const Feeds& feeds) const {
  const auto input = FindTensor(manifest_.inputs, kInputIds), masks = FindTensor(manifest_.inputs, kAttentionMask);
  if (!fewer_ || !input || !IsInteger(manifest_.inputs[*input].dtype)) return;
  const TensorView& tokens = feeds.tensors[*input];
  const TensorView* mask = masks ? &feeds.tensors[*masks] : nullptr;
  if (mask != nullptr && mask->count() != tokens.count()) mask = nullptr;
  const auto rows = static_cast<size_t>(tokens.shape[0]);
  const size_t width = tokens.count() / rows;
  for (size_t row = 0; row < rows; ++row) {
    const Task* const task = TaskAt(feeds, row);
    if (task == nullptr || !task->vocab_size) continue;
    for (size_t flat = row * width; flat < (row + 1) * width; ++flat) {
      const int64_t token = IntegerAt(tokens, flat);
      if (token < *task->vocab_size || (mask != nullptr && IsHidden(*mask, flat))) continue;
      throw LacksToken("input " + PlaceText(std::string(kInputIds), tokens, flat), token, *task);
    }
  }
}

void TaskChooser::CheckTokens(const Prompts& prompts, const Feeds& feeds) const {
  if (!fewer_) return;
  for (size_t row = 0; row < prompts.rows.size(); ++row) {
    const Task* const task = TaskAt(feeds, row);
    if (task == nullptr || !task->vocab_size) continue;
    const auto& [ids, length] = prompts.rows[row];
    for (size_t i = 0; i < length; ++i) {
      if (ids[i] < *task->vocab_size) continue;
      throw LacksToken("token " + std::to_string(i) + " of prompt " + std::to_string(row), ids[i], *task);
    }
  }
}

std::string TaskChooser::Ids() const {
  const int64_t first = by_id_.begin()->first, last = by_id_.rbegin()->first;
  if (static_cast<uint64_t>(last) - static_cast<uint64_t>(first) == by_id_.size() - 1) {
    return std::to_string(first) + " to " + std::to_string(last);
  }
  std::vector<std::string> ids;
  for (const auto& [id, index] : by_id_) ids.push_back(std::to_string(id));
  return Join(ids);
}

std::vector<int> TaskChooser::Rows(const Feeds& feeds, const TensorView* used) const {
  const auto batch = static_cast<size_t>(feeds.batch);
  if (input_ < 0) return std::vector<int>(batch, 0);
  const TensorView& ids = used != nullptr ? *used : feeds.tensors[static_cast<size_t>(input_)];
  std::vector<int> rows(batch, -1);
  for (size_t row = 0; row < batch; ++row) {
    const auto found = by_id_.find(IntegerAt(ids, row));
    if (found != by_id_.end()) rows[row] = found->second;
  }
  return rows;
}

std::string TaskChooser::Default() const {
  if (manifest_.task_inference) return kAuto;
  std::vector<std::string> own, all;
  for (const Task& task : manifest_.tasks) {
    all.push_back(task.name);
    if (task.name != kBase) own.push_back(task.name);
  }
  if (own.empty()) return kBase;
  if (own.size() > 1 && input_ >= 0) throw RequestError("name a task: " + Join(all));
  return own[0];
}

int64_t TaskChooser::Id(const std::string& name) const {
  const auto task = by_name_.find(name);
  if (task != by_name_.end() && (input_ >= 0 || task->second == manifest_.tasks.data())) return task->second->id;
  if (name == kAuto && manifest_.task_inference) return kInfer;
  throw Unknown(name);
}

Error TaskChooser::Unknown(const std::string& name) const {
  std::vector<std::string> known;
  for (const Task& task : manifest_.tasks) {
    if (known.empty() || input_ >= 0) known.push_back(task.name);
  }
  return RequestError("no task " + Shorten(Repr(name), 60) + "; this bundle has " + Join(known));
}

}  // namespace eptx::core
