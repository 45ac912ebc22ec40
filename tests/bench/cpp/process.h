// What both programs measure about themselves.
#pragma once

#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>

inline long ResidentKilobytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) return std::stol(line.substr(6));
  }
  return -1;
}

class Clock {
 public:
  double Milliseconds() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// A batch of 8 rows of 32 tokens, run `runs` times after the first.
constexpr long kRows = 8, kLength = 32;

inline void Report(double first_answer, double per_run) {
  std::printf("{\"first\": %.3f, \"run\": %.3f, \"resident\": %ld}\n", first_answer, per_run, ResidentKilobytes());
}
