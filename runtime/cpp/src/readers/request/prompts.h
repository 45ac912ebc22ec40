// A request to generate text: prompts and options, checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "eptx.h"
#include "readers/request/feeds.h"

namespace eptx::core {

constexpr int64_t kMostTokens = INT32_MAX;  // of a row: ONNX Runtime counts with 32 bits

// How a token is drawn; see eptx_generate_options.
struct Sampling {
  float temperature = 0;
  size_t top_k = 0;  // 0: no limit
  float top_p = 1;
  uint64_t seed = 0;
};

struct GenerateOptions {
  int64_t max_new_tokens;
  Sampling sampling;
  std::vector<int64_t> stop;
  eptx_on_token on_token;
  void* context;
};

// The prompts' tokens stay where the caller has them.
struct Prompts {
  struct Row {
    const int64_t* ids;
    size_t length;
  };
  std::vector<Row> rows;
  size_t longest = 0;
};

GenerateOptions ReadOptions(const eptx_generate_options& options);

// Checks every prompt. Throws also where a prompt with `max_new_tokens` is longer than the model reads.
Prompts ReadPrompts(const eptx_prompts& prompts, const Limits& limits, int64_t max_new_tokens);

}  // namespace eptx::core
