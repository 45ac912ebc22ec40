// The library as a C++ program uses it: eptx_stress TINY_BUNDLE REQUESTS [DECODER_BUNDLE]
//
// Tests moves and errors. Then sends REQUESTS requests of mixed tasks and sizes from 16 threads: every answer must have
// the bits that one thread gets. Does the same with a decoder. Prints one line and ends with 0 where all is well.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "eptx.hpp"
#include "expect.h"

namespace {

constexpr int kThreads = 16;
constexpr int64_t kVocabulary = 12;
constexpr size_t kLabels = 3;

// A request; its number determines its content.
struct Request {
  explicit Request(int number) {
    auto state = static_cast<uint32_t>(number) * 2654435761u + 12345;
    const auto next = [&](uint32_t below) {
      state = state * 1664525u + 1013904223u;
      return (state >> 8) % below;
    };
    rows = 1 + next(4);
    length = 1 + next(8);
    for (size_t i = 0; i < rows * length; ++i) ids.push_back(next(static_cast<uint32_t>(kVocabulary)));
    const char* const names[] = {"sst2", "mnli", "stsb", "base"};
    for (size_t row = 0; row < rows; ++row) tasks.emplace_back(names[next(4)]);
  }

  std::vector<eptx::Input> Inputs() const {
    return {{"input_ids", ids, {static_cast<int64_t>(rows), static_cast<int64_t>(length)}}};
  }

  size_t rows, length;
  std::vector<int64_t> ids;
  std::vector<std::string> tasks;
};

std::vector<float> Answer(const eptx::Session& session, const Request& request) {
  const eptx::Result result = session.Run(request.Inputs(), request.tasks);
  const float* logits = result.Data<float>("logits");
  for (size_t row = 0; row < request.rows; ++row) {
    EXPECT(result.Task(row) != nullptr && request.tasks[row] == result.Task(row)->name);
    EXPECT(result.Logits(row).size() == static_cast<size_t>(result.Task(row)->labels));
  }
  return std::vector<float>(logits, logits + request.rows * kLabels);
}

std::vector<float> AnswerInto(const eptx::Session& session, const Request& request) {
  std::vector<float> logits(request.rows * kLabels);
  session.RunInto(request.Inputs(), request.tasks, {{"logits", logits}});
  return logits;
}

std::vector<float> AnswerPrepared(const eptx::Session& session, const Request& request) {
  std::vector<float> logits(request.rows * kLabels, -1);
  Request copy = request;
  for (int64_t& id : copy.ids) id = kVocabulary;  // Run would refuse these values
  eptx::Call call(session, copy.Inputs(), copy.tasks, {{"logits", logits}});
  std::memcpy(copy.ids.data(), request.ids.data(), copy.ids.size() * sizeof(int64_t));
  call.Run();
  return logits;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

template <typename Function>
eptx_status StatusOf(Function function) {
  try {
    function();
    return EPTX_OK;
  } catch (const eptx::Error& error) {
    EXPECT(std::strlen(error.what()) > 0);
    return error.status();
  }
}

void CheckMoves(const std::string& bundle) {
  std::optional<eptx::Environment> environment(std::in_place);
  eptx::Session first(*environment, bundle);
  eptx::Environment moved = std::move(*environment);
  environment.reset();
  eptx::Session second = std::move(first);
  EXPECT(first.get() == nullptr && first.Tasks().empty() && first.Info().empty());
  EXPECT(second.Tasks().size() == 4 && second.Inputs().size() == 4 && second.Outputs().size() == 3);
  const Request request(1);
  EXPECT(StatusOf([&] { Answer(first, request); }) == EPTX_USAGE);
  std::optional<eptx::Result> result(second.Run(request.Inputs(), request.tasks));
  first = std::move(second);
  const eptx::Result kept = std::move(*result);
  result.reset();
  const std::vector<float> want = Answer(first, request);
  { const eptx::Session gone = std::move(first); }
  EXPECT(std::memcmp(kept.Data<float>("logits"), want.data(), want.size() * sizeof(float)) == 0);
  EXPECT(request.tasks[0] == kept.Task(0)->name);
}

void CheckErrors(const eptx::Environment& environment, const eptx::Session& session) {
  const Request request(2);
  EXPECT(StatusOf([&] { eptx::Session(environment, "/nowhere"); }) == EPTX_BAD_INPUT);
  EXPECT(StatusOf([] { eptx::Environment(-2); }) == EPTX_USAGE);
  EXPECT(StatusOf([&] { session.Run({}, {}); }) == EPTX_BAD_INPUT);
  EXPECT(StatusOf([&] { session.Run(request.Inputs(), {"rte"}); }) == EPTX_BAD_INPUT);
  EXPECT(StatusOf([&] { session.Run({request.Inputs()[0], request.Inputs()[0]}, {"mnli"}); }) == EPTX_BAD_INPUT);
  EXPECT(StatusOf([&] { session.RunInto(request.Inputs(), request.tasks, {}); }) == EPTX_USAGE);
  const eptx::Result result = session.Run(request.Inputs(), request.tasks);
  EXPECT(StatusOf([&] { result["x"]; }) == EPTX_BAD_INPUT);
  EXPECT(StatusOf([&] { result.Data<double>("logits"); }) == EPTX_USAGE);
  EXPECT(StatusOf([&] { result.Logits(99); }) == EPTX_USAGE);
  for (eptx::Input odd :
       {eptx::Input("input_ids", EPTX_INT64, nullptr, {1, 1}, 8),
        eptx::Input("input_ids", EPTX_INT64, request.ids.data(), {-1, 1}, 8),
        eptx::Input("input_ids", EPTX_INT64, request.ids.data(), {INT64_MAX, INT64_MAX}, 8),
        eptx::Input("input_ids", EPTX_INT64, request.ids.data(), {1, 1}, 7),
        eptx::Input("input_ids", static_cast<eptx_dtype>(77), request.ids.data(), {1, 1}, 8),
        eptx::Input("input_ids", EPTX_INT64, reinterpret_cast<const char*>(request.ids.data()) + 1, {1, 1}, 8)}) {
    const eptx_status status = StatusOf([&] { session.Run({odd}, {"mnli"}); });
    EXPECT(status == EPTX_BAD_INPUT || (odd.data == nullptr && status == EPTX_USAGE));
  }
}

void CheckNulls(const eptx::Session& session) {
  eptx_error* error = nullptr;
  eptx_result* result = nullptr;
  eptx_session* opened = nullptr;
  eptx_call* call = nullptr;
  EXPECT(eptx_environment_create(0, 0, nullptr, &error) == EPTX_USAGE && error != nullptr);
  EXPECT(eptx_error_status(error) == EPTX_USAGE && std::strlen(eptx_error_message(error)) > 0);
  eptx_error_free(error);
  EXPECT(eptx_environment_create(0, 0, nullptr, nullptr) == EPTX_USAGE);
  EXPECT(eptx_options_create(nullptr, nullptr) == EPTX_USAGE);
  EXPECT(eptx_session_open(nullptr, "x", nullptr, &opened, nullptr) == EPTX_USAGE && opened == nullptr);
  EXPECT(eptx_session_run(session.get(), nullptr, &result, nullptr) == EPTX_USAGE && result == nullptr);
  eptx_request lies = EPTX_INIT(eptx_request);
  lies.input_count = 3;
  lies.task_count = 2;
  EXPECT(eptx_session_run(session.get(), &lies, &result, nullptr) == EPTX_USAGE);
  EXPECT(eptx_session_run(nullptr, &lies, &result, nullptr) == EPTX_USAGE);
  EXPECT(eptx_session_run_into(session.get(), &lies, nullptr, 1, nullptr) == EPTX_USAGE);
  EXPECT(eptx_call_create(session.get(), &lies, nullptr, 1, &call, nullptr) == EPTX_USAGE && call == nullptr);
  EXPECT(eptx_call_run(nullptr, nullptr) == EPTX_USAGE);
  const eptx_input nameless = EPTX_INIT(eptx_input);
  eptx_request unnamed = EPTX_INIT(eptx_request);
  unnamed.inputs = &nameless;
  unnamed.input_count = 1;
  EXPECT(eptx_session_run(session.get(), &unnamed, &result, nullptr) == EPTX_USAGE);
  EXPECT(eptx_session_task(nullptr, 0) == nullptr && eptx_result_output(nullptr, 0) == nullptr);
  EXPECT(eptx_session_task(session.get(), 4) == nullptr && eptx_session_info(nullptr)[0] == 0);
  EXPECT(eptx_error_message(nullptr)[0] == 0 && eptx_error_status(nullptr) == EPTX_OK);
  EXPECT(eptx_dtype_size(EPTX_FLOAT16) == 2 && eptx_dtype_size(static_cast<eptx_dtype>(9)) == 0);
  eptx_error_free(nullptr);
  eptx_options_set_threads(nullptr, 1);
  eptx_session_close(nullptr);
  eptx_result_free(nullptr);
  eptx_call_free(nullptr);
}

// Calls `same` with the numbers below `count` from many threads at once, and expects true.
template <typename Same>
void ExpectFromManyThreads(int count, Same same) {
  std::atomic<int> next{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int n = next++; n < count; n = next++) wrong += !same(n);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT(wrong == 0);
}

void CheckThreads(const eptx::Session& session, int requests) {
  std::vector<std::vector<float>> alone;
  for (int i = 0; i < requests; ++i) alone.push_back(Answer(session, Request(i)));
  ExpectFromManyThreads(requests, [&](int i) {
    const auto ask = i % 3 == 0 ? Answer : i % 3 == 1 ? AnswerInto : AnswerPrepared;
    return SameBits(ask(session, Request(i)), alone[static_cast<size_t>(i)]);
  });
}

std::vector<std::vector<int64_t>> Continue(const eptx::Session& session, int number) {
  std::vector<std::vector<int64_t>> prompts, answers;
  std::vector<std::string> tasks;
  const std::vector<eptx_task> known = session.Tasks();
  for (int row = 0; row <= number % 4; ++row) {
    prompts.emplace_back(static_cast<size_t>(1 + (number * 7 + row * 5) % 9), 5 + number % 11 + row);
    tasks.emplace_back(known[static_cast<size_t>(number + row) % known.size()].name);
  }
  eptx::GenerateOptions options;
  options.max_new_tokens = 1 + number % 7;
  options.temperature = static_cast<float>(number % 2);
  options.seed = static_cast<uint64_t>(number);
  size_t told = 0, made = 0;
  const auto count = [&](size_t, int64_t) { return ++told != 0; };
  const eptx::Generation generation = session.Generate(prompts, tasks, options, count);
  for (size_t row = 0; row < prompts.size(); ++row) {
    EXPECT(generation[row].task != nullptr && tasks[row] == generation[row].task->name);
    answers.push_back(generation.Tokens(row));
    made += answers.back().size();
  }
  EXPECT(made == told);
  return answers;
}

void CheckGeneration(const eptx::Session& session) {
  constexpr int kNumber = 60;
  std::vector<std::vector<std::vector<int64_t>>> alone;
  for (int i = 0; i < kNumber; ++i) alone.push_back(Continue(session, i));
  ExpectFromManyThreads(kNumber, [&](int n) { return Continue(session, n) == alone[static_cast<size_t>(n)]; });
  const std::string task = session.Tasks()[0].name;
  EXPECT(StatusOf([&] { session.Generate({{}}, {task}); }) == EPTX_BAD_INPUT);
  const auto throws = [](size_t, int64_t) -> bool { throw eptx::Error(EPTX_VALIDATION, "thrown by the caller"); };
  EXPECT(StatusOf([&] { session.Generate({{5}}, {task}, {4}, throws); }) == EPTX_VALIDATION);
  EXPECT(StatusOf([&] { session.Generate({{5}}, {task}, {1})[1]; }) == EPTX_USAGE);
}

void CheckOpeningFromThreads(const eptx::Environment& environment, const std::string& bundle) {
  const Request request(3);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { Answer(eptx::Session(environment, bundle, {1}), request); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::fprintf(stderr, "usage: eptx_stress TINY_BUNDLE REQUESTS [DECODER_BUNDLE]\n");
    return 2;
  }
  const std::string bundle = argv[1];
  const int requests = std::atoi(argv[2]);
  CheckMoves(bundle);
  {
    const eptx::Environment environment;
    const eptx::Session session(environment, bundle, {1});
    CheckErrors(environment, session);
    CheckNulls(session);
    CheckOpeningFromThreads(environment, bundle);
    CheckThreads(session, requests);
    if (argc == 4) CheckGeneration(eptx::Session(environment, argv[3], {1}));
  }
  {
    const eptx::Environment shared(2);  // one pool for all sessions
    EXPECT(StatusOf([&] { eptx::Session(shared, bundle, {1}); }) == EPTX_USAGE);
    CheckThreads(eptx::Session(shared, bundle), requests / 10);
  }
  std::printf("%d requests from %d threads: the same bits as from one\n", requests, kThreads);
  return 0;
}
