// Runs a batch of prompts through a decoder.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "generate/decoder.h"
#include "readers/request/prompts.h"
#include "session/session.h"

namespace eptx::core {

// Rows are padded on the right. The attention counts the ones in a row's mask to find the position of the row's next
// token. Every step adds a column of ones to the mask. Past and present of the cache share one buffer, which is as long
// as the longest row can get; the attention writes one position of it in every step.
class Decoding {
 public:
  // Runs the prompts. The session and the decoder must outlive it.
  Decoding(const Session& session, const Decoder& decoder, const Prompts& prompts, const eptx_prompts& given,
           int64_t max_new_tokens);
  Decoding(const Decoding&) = delete;
  Decoding& operator=(const Decoding&) = delete;

  // Runs one more token of every row.
  void Step(const std::vector<int64_t>& tokens);

  // The logits for the token after a row's last one; valid until the next call.
  const float* Logits(size_t row);
  size_t vocabulary() const { return vocabulary_; }

  const std::vector<int>& tasks() const { return tasks_; }  // of each row; -1 where unknown

 private:
  struct FreeMemory {
    void operator()(void* p) const { std::free(p); }
  };

  void FeedTasks(const eptx_prompts& given);
  void FeedPrompts(const Prompts& prompts);
  void FeedMask();
  void FeedCache(size_t capacity);
  void Feed(size_t input, const std::vector<int64_t>& values, size_t width);
  void Run(size_t width);
  void KeepChosen();

  const Session& session_;
  const Decoder& decoder_;
  const size_t rows_, longest_;
  std::vector<size_t> lengths_;  // of the prompts
  size_t steps_ = 0;             // tokens that were added to every row since
  Feeds feeds_;                  // of the tasks
  std::vector<int64_t> ids_, mask_;
  std::vector<std::unique_ptr<void, FreeMemory>> cache_;
  std::vector<Owned<OrtValue>> inputs_, outputs_;
  std::vector<const char*> names_;  // of the outputs
  std::vector<int> tasks_;
  size_t width_ = 0;       // number of positions in the last run
  size_t stride_ = 0;      // number of logits of a position
  size_t vocabulary_ = 0;  // number of logits that stand for tokens
  std::vector<float> scratch_;
};

}  // namespace eptx::core
