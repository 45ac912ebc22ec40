// Threads that end while they are in the library: eptx_ends DECODER_BUNDLE TASK
//
// Threads end by pthread_exit in on_token (C and C++ interface), and by cancellation in on_token and in calls. After
// each, the session answers as before. Prints one line and ends with 0 where all is well.
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "eptx.hpp"
#include "expect.h"

namespace {

struct Scene {
  const eptx::Environment& environment;
  const eptx::Session& session;
  std::string bundle, task;
  std::atomic<bool> inside{false};
  std::atomic<int> calls{0}, unwound{0};
};

char kResult[] = "ended by pthread_exit";

int32_t Exits(void*, size_t, int64_t) { pthread_exit(kResult); }

// Waits where a cancelled thread ends.
int32_t Waits(void* context, size_t, int64_t) {
  static_cast<Scene*>(context)->inside = true;
  for (;;) usleep(1000);
}

void GenerateWith(Scene& scene, eptx_on_token on_token) {
  const int64_t ids[] = {5, 6, 7};
  const size_t lengths[] = {3};
  const char* const tasks[] = {scene.task.c_str()};
  eptx_prompts prompts = EPTX_INIT(eptx_prompts);
  prompts.ids = ids;
  prompts.id_count = 3;
  prompts.lengths = lengths;
  prompts.row_count = 1;
  prompts.tasks = tasks;
  prompts.task_count = 1;
  eptx_generate_options options = EPTX_INIT(eptx_generate_options);
  options.max_new_tokens = 8;
  options.on_token = on_token;
  options.context = &scene;
  eptx_generation* generation = nullptr;
  eptx_session_generate(scene.session.get(), &prompts, &options, &generation, nullptr);
  std::exit(3);  // reached only if the call returned
}

struct Counts {
  explicit Counts(std::atomic<int>& count) : count(count) {}
  ~Counts() { ++count; }
  std::atomic<int>& count;
};

void* ExitsInC(void* scene) {
  const Counts unwound(static_cast<Scene*>(scene)->unwound);
  GenerateWith(*static_cast<Scene*>(scene), Exits);
  return nullptr;
}

void* ExitsInCpp(void* given) {
  auto& scene = *static_cast<Scene*>(given);
  const Counts unwound(scene.unwound);
  eptx::GenerateOptions options;
  options.max_new_tokens = 8;
  scene.session.Generate({{5, 6, 7}}, {scene.task}, options, [](size_t, int64_t) -> bool { pthread_exit(kResult); });
  std::exit(3);
}

void* IsCancelledInOnToken(void* scene) {
  const Counts unwound(static_cast<Scene*>(scene)->unwound);
  GenerateWith(*static_cast<Scene*>(scene), Waits);
  return nullptr;
}

// Opens, runs and generates until it is cancelled.
void* Works(void* given) {
  auto& scene = *static_cast<Scene*>(given);
  const Counts unwound(scene.unwound);
  for (;;) {
    const eptx::Session session(scene.environment, scene.bundle, {2});
    const std::vector<int64_t> ids = {5, 6, 7};
    session.Run({{"input_ids", ids, {1, 3}}}, {scene.task});
    eptx::GenerateOptions options;
    options.max_new_tokens = 4;
    session.Generate({{5, 6, 7}}, {scene.task}, options);
    ++scene.calls;
    pthread_testcancel();
  }
}

std::vector<int64_t> Answer(const Scene& scene) {
  eptx::GenerateOptions options;
  options.max_new_tokens = 8;
  return scene.session.Generate({{5, 6, 7}}, {scene.task}, options).Tokens(0);
}

// The result of a thread.
void* Join(pthread_t thread) {
  void* result = nullptr;
  EXPECT(pthread_join(thread, &result) == 0);
  return result;
}

pthread_t Start(void* (*function)(void*), Scene& scene) {
  pthread_t thread;
  EXPECT(pthread_create(&thread, nullptr, function, &scene) == 0);
  return thread;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: eptx_ends DECODER_BUNDLE TASK\n");
    return 2;
  }
  alarm(300);
  const eptx::Environment environment;
  const eptx::Session session(environment, argv[1], {1});
  Scene scene{environment, session, argv[1], argv[2]};
  const std::vector<int64_t> wanted = Answer(scene);
  for (void* (*const function)(void*) : {ExitsInC, ExitsInCpp}) {
    EXPECT(Join(Start(function, scene)) == kResult);
    EXPECT(Answer(scene) == wanted);
  }
  const pthread_t waiting = Start(IsCancelledInOnToken, scene);
  while (!scene.inside) usleep(100);
  EXPECT(pthread_cancel(waiting) == 0);
  EXPECT(Join(waiting) == PTHREAD_CANCELED);
  EXPECT(Answer(scene) == wanted);
  constexpr int kTries = 60;
  for (int i = 0; i < kTries; ++i) {
    const pthread_t working = Start(Works, scene);
    usleep(static_cast<useconds_t>(i * 997));  // during one of the first calls
    EXPECT(pthread_cancel(working) == 0);
    EXPECT(Join(working) == PTHREAD_CANCELED);
  }
  EXPECT(Answer(scene) == wanted);
  EXPECT(scene.unwound == 3 + kTries);  // destructors of the callers' objects ran
  std::printf("%d threads ended in the library; it goes on\n", 3 + kTries);
  return 0;
}
