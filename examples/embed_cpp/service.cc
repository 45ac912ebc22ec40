// A small service: answers requests of any task from several threads, several tasks in one batch.
//
//     eptx_service BUNDLE [THREADS] < requests > answers
//
// A request is a line of a task's name and token ids, "sst2 101 1037 2986 2143 102"; its answer is a line of the task
// and the label, in the order of the requests. Workers take what is waiting, up to a batch, whatever its tasks are.
#include <eptx.hpp>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <future>
#include <iostream>
#include <mutex>
#include <sstream>
#include <thread>

namespace {

constexpr size_t kBatch = 8;

struct Request {
  std::string task;
  std::vector<int64_t> tokens;
  std::promise<std::string> answer;
};

// Requests that wait for a worker.
class Queue {
 public:
  void Push(Request request) {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.push_back(std::move(request));
    changed_.notify_one();
  }

  void Close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

  // Up to a batch of requests; none when the queue is closed and empty.
  std::vector<Request> Take() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || !waiting_.empty(); });
    std::vector<Request> batch;
    while (!waiting_.empty() && batch.size() < kBatch) {
      batch.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    return batch;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Request> waiting_;
  bool closed_ = false;
};

// The best label of a row, its labels where each counts by itself, or the number of a regression.
std::string Label(const eptx::Result& result, size_t row) {
  const eptx_task* task = result.Task(row);
  if (task == nullptr || task->problem_type == EPTX_NO_PROBLEM) return "-";
  if (task->problem_type == EPTX_REGRESSION) return std::to_string(result.Logits(row)[0]);
  std::string labels;
  for (const size_t label : result.Labels(row)) {
    if (!labels.empty()) labels += ", ";
    labels += task->label_names != nullptr ? task->label_names[label] : std::to_string(label);
  }
  return labels.empty() ? "none" : labels;
}

// One run for requests of any tasks, padded to the longest.
void Answer(const eptx::Session& session, std::vector<Request>& batch) {
  size_t length = 1;
  for (const Request& request : batch) length = std::max(length, request.tokens.size());
  std::vector<int64_t> ids(batch.size() * length, 0), mask(batch.size() * length, 0);
  std::vector<std::string> tasks;
  for (size_t row = 0; row < batch.size(); ++row) {
    const std::vector<int64_t>& tokens = batch[row].tokens;
    std::copy(tokens.begin(), tokens.end(), ids.begin() + static_cast<std::ptrdiff_t>(row * length));
    std::fill_n(mask.begin() + static_cast<std::ptrdiff_t>(row * length), tokens.size(), 1);
    tasks.push_back(batch[row].task);
  }
  const std::vector<int64_t> shape = {static_cast<int64_t>(batch.size()), static_cast<int64_t>(length)};
  const eptx::Result result = session.Run({{"input_ids", ids, shape}, {"attention_mask", mask, shape}}, tasks);
  for (size_t row = 0; row < batch.size(); ++row) batch[row].answer.set_value(Label(result, row));
}

// One bad request must not spoil its neighbours: where a batch fails, each goes by itself.
void AnswerEach(const eptx::Session& session, std::vector<Request>& batch) {
  for (Request& request : batch) {
    std::vector<Request> alone;
    alone.push_back(std::move(request));
    try {
      Answer(session, alone);
    } catch (const eptx::Error& error) {
      alone[0].answer.set_value(std::string("error: ") + error.what());
    }
  }
}

void Work(const eptx::Session& session, Queue& queue) {
  for (std::vector<Request> batch = queue.Take(); !batch.empty(); batch = queue.Take()) {
    try {
      Answer(session, batch);
    } catch (const eptx::Error&) {
      AnswerEach(session, batch);
    }
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2 || argc > 3) {
    std::cerr << "usage: eptx_service BUNDLE [THREADS] < requests\n";
    return EPTX_USAGE;
  }
  const eptx::Environment environment;
  const eptx::Session session(environment, argv[1], {1});  // one thread an operator: the workers are the threads
  std::cerr << session.Info() << "\n";
  Queue queue;
  std::vector<std::thread> workers;
  for (int i = 0; i < (argc == 3 ? std::max(1, std::atoi(argv[2])) : 4); ++i) {
    workers.emplace_back([&] { Work(session, queue); });
  }
  std::vector<std::pair<std::string, std::future<std::string>>> answers;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    Request request;
    if (!(words >> request.task)) continue;
    for (int64_t token = 0; words >> token;) request.tokens.push_back(token);
    answers.emplace_back(request.task, request.answer.get_future());
    queue.Push(std::move(request));
  }
  queue.Close();
  for (auto& [task, answer] : answers) std::cout << task << " " << answer.get() << "\n";
  for (std::thread& worker : workers) worker.join();
  return EPTX_OK;
} catch (const eptx::Error& error) {
  std::cerr << "error: " << error.what() << "\n";
  return error.status();
}
