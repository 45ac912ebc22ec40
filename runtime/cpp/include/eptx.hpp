// libeptx for C++17: eptx.h as move-only objects and exceptions. Header-only; all that it needs is libeptx.
//
//   eptx::Environment environment;
//   eptx::Session session(environment, "bundle");
//   const std::vector<int64_t> ids = {101, 1037, 2986, 2143, 102};
//   const eptx::Result result = session.Run({{"input_ids", ids, {1, 5}}}, {"sst2"});
//   for (float logit : result.Logits(0)) std::cout << logit << "\n";
//
// What each call means, checks and bounds is said in eptx.h. A const object may be used from many threads at once.
// Failures are thrown as eptx::Error.
#ifndef EPTX_HPP_
#define EPTX_HPP_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#include "eptx.h"

namespace eptx {

// What went wrong, in one line.
class Error : public std::runtime_error {
 public:
  Error(eptx_status status, const std::string& message) : std::runtime_error(message), status_(status) {}

  eptx_status status() const noexcept { return status_; }

 private:
  eptx_status status_;
};

namespace detail {

struct Free {
  void operator()(eptx_error* p) const noexcept { eptx_error_free(p); }
  void operator()(eptx_environment* p) const noexcept { eptx_environment_free(p); }
  void operator()(eptx_options* p) const noexcept { eptx_options_free(p); }
  void operator()(eptx_session* p) const noexcept { eptx_session_close(p); }
  void operator()(eptx_result* p) const noexcept { eptx_result_free(p); }
  void operator()(eptx_call* p) const noexcept { eptx_call_free(p); }
  void operator()(eptx_generation* p) const noexcept { eptx_generation_free(p); }
  void operator()(eptx_validation* p) const noexcept { eptx_validation_free(p); }
};

template <typename T>
using Handle = std::unique_ptr<T, Free>;

// Calls a function of eptx.h with a place for its error, and throws that.
template <typename Function>
void Check(Function function) {
  eptx_error* error = nullptr;
  const eptx_status status = function(&error);
  const Handle<eptx_error> owner(error);
  if (status != EPTX_OK) throw Error(status, eptx_error_message(error));
}

// The same with a place for a handle, which is returned.
template <typename T, typename Function>
Handle<T> Make(Function function) {
  T* handle = nullptr;
  Check([&](eptx_error** error) { return function(&handle, error); });
  return Handle<T>(handle);
}

// A copy of a structure of the library, which may be older or newer than this header: what it lacks is zero.
template <typename T>
T Copy(const T& given) {
  T copy{};
  std::memcpy(&copy, &given, std::min(given.size, sizeof copy));
  return copy;
}

template <typename>
inline constexpr bool kUnknown = false;

// The dtype of a C++ type; two bytes are float16, as bits.
template <typename T>
constexpr eptx_dtype Dtype() {
  if constexpr (std::is_same_v<T, float>) {
    return EPTX_FLOAT32;
  } else if constexpr (std::is_same_v<T, double>) {
    return EPTX_FLOAT64;
  } else if constexpr (std::is_same_v<T, int32_t>) {
    return EPTX_INT32;
  } else if constexpr (std::is_integral_v<T> && std::is_signed_v<T> && sizeof(T) == 8) {
    return EPTX_INT64;
  } else if constexpr (std::is_same_v<T, bool>) {
    return EPTX_BOOL;
  } else if constexpr (std::is_same_v<T, uint16_t>) {
    return EPTX_FLOAT16;
  } else {
    static_assert(kUnknown<T>, "not the type of a tensor");
  }
}

}  // namespace detail

// What sessions share; a program needs one.
class Environment {
 public:
  explicit Environment(int32_t shared_threads = 0, size_t arena_limit = 0)
      : handle_(detail::Make<eptx_environment>([&](auto* made, auto* error) {
          return eptx_environment_create(shared_threads, arena_limit, made, error);
        })) {}

  const eptx_environment* get() const noexcept { return handle_.get(); }

 private:
  detail::Handle<eptx_environment> handle_;
};

// How a session is opened.
struct Options {
  int32_t threads = 0;
  bool verify = true;
  eptx_kernels kernels = EPTX_KERNELS_AUTO;
  bool arena = true;
};

namespace detail {

inline Handle<eptx_options> MakeOptions(const Options& options) {
  auto made = Make<eptx_options>(eptx_options_create);
  eptx_options_set_threads(made.get(), options.threads);
  eptx_options_set_verify(made.get(), options.verify);
  eptx_options_set_kernels(made.get(), options.kernels);
  eptx_options_set_arena(made.get(), options.arena);
  return made;
}

}  // namespace detail

// An input in the caller's memory, which must outlive the call.
struct Input {
  Input(std::string name, eptx_dtype dtype, const void* data, std::vector<int64_t> shape, size_t bytes)
      : name(std::move(name)), dtype(dtype), data(data), shape(std::move(shape)), bytes(bytes) {}

  template <typename T>
  Input(std::string name, const std::vector<T>& values, std::vector<int64_t> shape)
      : Input(std::move(name), detail::Dtype<T>(), values.data(), std::move(shape), values.size() * sizeof(T)) {}

  std::string name;
  eptx_dtype dtype;
  const void* data;
  std::vector<int64_t> shape;
  size_t bytes;
};

// An output in the caller's memory, which must outlive the call.
struct Output {
  Output(std::string name, eptx_dtype dtype, void* data, size_t capacity)
      : name(std::move(name)), dtype(dtype), data(data), capacity(capacity) {}

  template <typename T>
  Output(std::string name, std::vector<T>& values)
      : Output(std::move(name), detail::Dtype<T>(), values.data(), values.size() * sizeof(T)) {}

  std::string name;
  eptx_dtype dtype;
  void* data;
  size_t capacity;
};

namespace detail {

// A request and outputs as eptx.h takes them; they point into what they are made from.
class Arguments {
 public:
  Arguments(const std::vector<Input>& inputs, const std::vector<std::string>& tasks,
            const std::vector<Output>& outputs = {}) {
    for (const Input& in : inputs) {
      eptx_input input = EPTX_INIT(eptx_input);
      input.name = in.name.c_str();
      input.dtype = in.dtype;
      input.rank = in.shape.size();
      input.shape = in.shape.data();
      input.data = in.data;
      input.bytes = in.bytes;
      inputs_.push_back(input);
    }
    for (const std::string& task : tasks) tasks_.push_back(task.c_str());
    for (const Output& out : outputs) {
      eptx_output output = EPTX_INIT(eptx_output);
      output.name = out.name.c_str();
      output.dtype = out.dtype;
      output.data = out.data;
      output.capacity = out.capacity;
      outputs_.push_back(output);
    }
    request_.inputs = inputs_.data();
    request_.input_count = inputs_.size();
    request_.tasks = tasks_.data();
    request_.task_count = tasks_.size();
  }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  const eptx_request* request() const noexcept { return &request_; }
  eptx_output* outputs() noexcept { return outputs_.data(); }
  size_t output_count() const noexcept { return outputs_.size(); }

 private:
  std::vector<eptx_input> inputs_;
  std::vector<const char*> tasks_;
  std::vector<eptx_output> outputs_;
  eptx_request request_ = EPTX_INIT(eptx_request);
};

}  // namespace detail

// The outputs of one request.
class Result {
 public:
  explicit Result(detail::Handle<eptx_result> handle) : handle_(std::move(handle)) {}

  // An output by name, valid while the result lives.
  const eptx_tensor& operator[](const std::string& name) const {
    for (size_t i = 0; const eptx_tensor* tensor = eptx_result_output(handle_.get(), i); ++i) {
      if (name == tensor->name) return *tensor;
    }
    throw Error(EPTX_BAD_INPUT, "no output '" + name + "'");
  }

  // The values of an output.
  template <typename T>
  const T* Data(const std::string& name) const {
    const eptx_tensor& tensor = (*this)[name];
    if (tensor.dtype != detail::Dtype<T>()) throw Error(EPTX_USAGE, "output '" + name + "' is of another type");
    return static_cast<const T*>(tensor.data);
  }

  // The task of a row: what was asked for, or inferred; null where it is none of the bundle's.
  const eptx_task* Task(size_t row) const noexcept { return eptx_result_task(handle_.get(), row); }

  // The logits of a row that are its task's; empty for a task without a head. Where every token has logits, those of the
  // first are followed by those of the next.
  std::vector<float> Logits(size_t row) const {
    const float* data = Data<float>("logits");
    const eptx_tensor& tensor = (*this)["logits"];
    const size_t rows = static_cast<size_t>(tensor.shape[0]);
    if (row >= rows) throw Error(EPTX_USAGE, "no row " + std::to_string(row));
    const size_t width = tensor.bytes / sizeof(float) / rows;
    const size_t each = static_cast<size_t>(tensor.shape[tensor.rank - 1]), own = LabelCount(row);
    std::vector<float> found;
    for (const float* first = data + row * width; first < data + (row + 1) * width; first += each) {
      found.insert(found.end(), first, first + own);
    }
    return found;
  }

  // The probability of each of a row's labels, by what its task's logits mean; empty for a regression, or without a
  // head. Where every token has labels, those of the first are followed by those of the next.
  std::vector<double> Probabilities(size_t row) const {
    const eptx_task* task = Task(row);
    const std::vector<float> logits = Logits(row);
    const eptx_problem_type problem = task == nullptr ? EPTX_NO_PROBLEM : task->problem_type;
    if (logits.empty() || problem == EPTX_NO_PROBLEM || problem == EPTX_REGRESSION) return {};
    std::vector<double> found(logits.begin(), logits.end());
    if (problem == EPTX_MULTI_LABEL) {
      for (double& value : found) value = (1 + std::tanh(value / 2)) / 2;
      return found;
    }
    const size_t labels = LabelCount(row);
    for (size_t first = 0; first < found.size(); first += labels) {
      const double largest = *std::max_element(found.begin() + first, found.begin() + first + labels);
      double sum = 0;
      for (size_t i = first; i < first + labels; ++i) sum += found[i] = std::exp(found[i] - largest);
      for (size_t i = first; i < first + labels; ++i) found[i] /= sum;
    }
    return found;
  }

  // The labels of a row, by number, which is their place in the task's `label_names`: the best one, and where every
  // token has labels, that of each token; of several those that are more likely than not (not for models whose every
  // token has several: see Probabilities); none for a regression or without a head.
  std::vector<size_t> Labels(size_t row) const {
    const std::vector<double> found = Probabilities(row);
    std::vector<size_t> labels;
    if (found.empty()) return labels;
    if (Task(row)->problem_type == EPTX_SINGLE_LABEL) {
      const size_t count = LabelCount(row);
      for (auto first = found.begin(); first != found.end(); first += count) {
        labels.push_back(static_cast<size_t>(std::max_element(first, first + count) - first));
      }
      return labels;
    }
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i] > 0.5) labels.push_back(i);
    }
    return labels;
  }

 private:
  // How many logits of a row, or of each of its tokens, are its task's.
  size_t LabelCount(size_t row) const {
    const eptx_tensor& tensor = (*this)["logits"];
    const int64_t all = tensor.shape[tensor.rank - 1];
    const eptx_task* task = Task(row);
    return static_cast<size_t>(task == nullptr || task->labels < 0 ? all : std::min(task->labels, all));
  }

  detail::Handle<eptx_result> handle_;
};

// How to generate; see eptx_generate_options.
struct GenerateOptions {
  int64_t max_new_tokens = 256;
  float temperature = 0;
  float top_p = 1;
  int64_t top_k = 0;
  uint64_t seed = 0;
  std::vector<int64_t> stop = {};
};

// Is told of every token as it comes, and says whether to go on. What it throws ends the call, and comes out of it.
using OnToken = std::function<bool(size_t row, int64_t token)>;

// The answers to prompts.
class Generation {
 public:
  explicit Generation(detail::Handle<eptx_generation> handle) : handle_(std::move(handle)) {}

  // A row's answer, valid while the generation lives.
  const eptx_generated& operator[](size_t row) const {
    const eptx_generated* answer = eptx_generation_row(handle_.get(), row);
    if (answer == nullptr) throw Error(EPTX_USAGE, "no row " + std::to_string(row));
    return *answer;
  }

  std::vector<int64_t> Tokens(size_t row) const {
    const eptx_generated& answer = (*this)[row];
    return std::vector<int64_t>(answer.tokens, answer.tokens + answer.token_count);
  }

 private:
  detail::Handle<eptx_generation> handle_;
};

namespace detail {

// Prompts as eptx.h takes them; they point into what they are made from.
class PromptArguments {
 public:
  PromptArguments(const std::vector<std::vector<int64_t>>& prompts, const std::vector<std::string>& tasks) {
    for (const std::vector<int64_t>& prompt : prompts) {
      ids_.insert(ids_.end(), prompt.begin(), prompt.end());
      lengths_.push_back(prompt.size());
    }
    for (const std::string& task : tasks) tasks_.push_back(task.c_str());
    prompts_.ids = ids_.data();
    prompts_.id_count = ids_.size();
    prompts_.lengths = lengths_.data();
    prompts_.row_count = lengths_.size();
    prompts_.tasks = tasks_.data();
    prompts_.task_count = tasks_.size();
  }
  PromptArguments(const PromptArguments&) = delete;
  PromptArguments& operator=(const PromptArguments&) = delete;

  const eptx_prompts* prompts() const noexcept { return &prompts_; }

 private:
  std::vector<int64_t> ids_;
  std::vector<size_t> lengths_;
  std::vector<const char*> tasks_;
  eptx_prompts prompts_ = EPTX_INIT(eptx_prompts);
};

// A caller's function behind the C interface, which no exception may cross; the end of a thread may.
struct Listener {
  static int32_t Call(void* context, size_t row, int64_t token) {
    auto& listener = *static_cast<Listener*>(context);
    try {
      return listener.on_token(row, token) ? 0 : 1;
#ifdef __GLIBCXX__
    } catch (const abi::__forced_unwind&) {
      throw;
#endif
    } catch (...) {
      listener.thrown = std::current_exception();
      return 1;
    }
  }

  const OnToken& on_token;
  std::exception_ptr thrown = nullptr;
};

}  // namespace detail

// A bundle, opened.
class Session {
 public:
  Session(const Environment& environment, const std::string& bundle, const Options& options = {})
      : handle_(Open(environment, bundle, options)) {}

  // See eptx_request for what inputs may be left out, and how tasks are named.
  Result Run(const std::vector<Input>& inputs, const std::vector<std::string>& tasks = {}) const {
    const detail::Arguments a(inputs, tasks);
    return Result(detail::Make<eptx_result>(
        [&](auto* made, auto* error) { return eptx_session_run(get(), a.request(), made, error); }));
  }

  // Writes outputs into the caller's memory.
  void RunInto(const std::vector<Input>& inputs, const std::vector<std::string>& tasks,
               const std::vector<Output>& outputs) const {
    detail::Arguments a(inputs, tasks, outputs);
    detail::Check([&](eptx_error** error) {
      return eptx_session_run_into(get(), a.request(), a.outputs(), a.output_count(), error);
    });
  }

  // Continues prompts, given as token ids, of a decoder.
  Generation Generate(const std::vector<std::vector<int64_t>>& prompts, const std::vector<std::string>& tasks = {},
                      const GenerateOptions& options = {}, const OnToken& on_token = {}) const {
    const detail::PromptArguments a(prompts, tasks);
    detail::Listener listener{on_token};
    eptx_generate_options o = EPTX_INIT(eptx_generate_options);
    o.max_new_tokens = options.max_new_tokens;
    o.temperature = options.temperature;
    o.top_p = options.top_p;
    o.top_k = options.top_k;
    o.seed = options.seed;
    o.stop = options.stop.data();
    o.stop_count = options.stop.size();
    if (on_token) {
      o.on_token = detail::Listener::Call;
      o.context = &listener;
    }
    Generation generation(detail::Make<eptx_generation>(
        [&](auto* made, auto* error) { return eptx_session_generate(get(), a.prompts(), &o, made, error); }));
    if (listener.thrown) std::rethrow_exception(listener.thrown);
    return generation;
  }

  std::vector<eptx_task> Tasks() const { return All(eptx_session_task); }
  std::vector<eptx_tensor_info> Inputs() const { return All(eptx_session_input); }
  std::vector<eptx_tensor_info> Outputs() const { return All(eptx_session_output); }
  std::string Info() const { return eptx_session_info(get()); }

  const eptx_session* get() const noexcept { return handle_.get(); }

 private:
  static detail::Handle<eptx_session> Open(const Environment& environment, const std::string& bundle,
                                           const Options& options) {
    const auto made = detail::MakeOptions(options);
    return detail::Make<eptx_session>([&](auto* session, auto* error) {
      return eptx_session_open(environment.get(), bundle.c_str(), made.get(), session, error);
    });
  }

  template <typename T>
  std::vector<T> All(const T* (*at)(const eptx_session*, size_t) noexcept) const {
    std::vector<T> items;
    while (const T* item = at(get(), items.size())) items.push_back(detail::Copy(*item));
    return items;
  }

  detail::Handle<eptx_session> handle_;
};

// A request prepared to be run many times with other values in the same buffers, by one thread at a time.
class Call {
 public:
  Call(const Session& session, const std::vector<Input>& inputs, const std::vector<std::string>& tasks,
       const std::vector<Output>& outputs) {
    detail::Arguments a(inputs, tasks, outputs);
    handle_ = detail::Make<eptx_call>([&](auto* made, auto* error) {
      return eptx_call_create(session.get(), a.request(), a.outputs(), a.output_count(), made, error);
    });
  }

  void Run() {
    detail::Check([&](eptx_error** error) { return eptx_call_run(handle_.get(), error); });
  }

 private:
  detail::Handle<eptx_call> handle_;
};

// What a bundle computes on this machine, compared with what was proved of it: see eptx_validate.
class Validation {
 public:
  Validation(const Environment& environment, const std::string& bundle, const std::string& proof,
             const Options& options = {}) {
    const auto made = detail::MakeOptions(options);
    handle_ = detail::Make<eptx_validation>([&](auto* validation, auto* error) {
      return eptx_validate(environment.get(), bundle.c_str(), proof.c_str(), made.get(), validation, error);
    });
  }

  bool Passed() const noexcept { return eptx_validation_passed(handle_.get()) != 0; }
  std::string Report() const { return eptx_validation_report(handle_.get()); }  // JSON

 private:
  detail::Handle<eptx_validation> handle_;
};

}  // namespace eptx

#endif  // EPTX_HPP_
