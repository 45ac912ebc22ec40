// bench_bundle BUNDLE THREADS RUNS: runs a verified bundle of many tasks through libeptx; every row has another task.
#include <cstdlib>
#include <eptx.hpp>
#include <vector>

#include "process.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int threads = std::atoi(argv[2]), runs = std::atoi(argv[3]);
  const Clock clock;
  const eptx::Environment environment;
  const eptx::Session session(environment, argv[1], {threads});
  const auto tasks = session.Tasks();
  std::vector<std::string> names;
  for (long row = 0; row < kRows; ++row) names.push_back(tasks[static_cast<size_t>(row) % (tasks.size() - 1)].name);
  const std::vector<int64_t> ids(kRows * kLength, 7);
  std::vector<float> hidden(kRows * kLength * 384);
  eptx::Call call(session, {{"input_ids", ids, {kRows, kLength}}}, names, {{"last_hidden_state", hidden}});
  call.Run();
  const double first = clock.Milliseconds();
  const Clock all;
  for (int i = 0; i < runs; ++i) call.Run();
  Report(first, all.Milliseconds() / runs);
}
