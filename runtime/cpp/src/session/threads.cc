#include "session/threads.h"

#include <future>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "readers/error.h"

namespace eptx::core {
namespace {

constexpr int32_t kMost = 4096;
constexpr size_t kSpare = 4;  // the system still counts a thread for a moment after its end

// Threads that wait until this object goes.
class Waiting {
 public:
  Waiting() = default;
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  ~Waiting() {
    end_.set_value();
    for (std::thread& thread : threads_) thread.join();
  }

  void Start(size_t count) {
    threads_.reserve(count);
    const std::shared_future<void> end = end_.get_future().share();
    while (threads_.size() < count) {
      threads_.emplace_back([end] {
        const std::string memory(100,
                                 ' ');  // a thread's first allocation takes address space, as in ONNX Runtime's threads
        end.wait();
      });
    }
  }

 private:
  std::promise<void> end_;
  std::vector<std::thread> threads_;
};

}  // namespace

void CheckThreadCount(int32_t count, const char* name) {
  if (count >= 0 && count <= kMost) return;
  const std::string range = count < 0 ? "0 or a positive number" : "at most " + std::to_string(kMost);
  throw UsageError(std::string(name) + " must be " + range + ", not " + std::to_string(count));
}

void CheckRoomForThreads(int32_t count) {
  const size_t all = count != 0 ? static_cast<size_t>(count) : std::thread::hardware_concurrency();
  if (all <= 1) return;
  try {
    Waiting().Start(all - 1 + kSpare);
  } catch (const std::system_error& error) {
    throw LimitError("a pool of " + std::to_string(all) + " threads cannot be started: " + error.code().message());
  }
}

}  // namespace eptx::core
