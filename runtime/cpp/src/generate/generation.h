// Continues prompts: the answers, and why each ended.
#pragma once

#include <memory>
#include <vector>

#include "generate/decoding.h"
#include "generate/sampler.h"
#include "readers/request/prompts.h"
#include "session/session.h"

namespace eptx::core {

class Generation {
 public:
  Generation(std::shared_ptr<const Session> session, const eptx_prompts& prompts, const eptx_generate_options& options);
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  const std::vector<eptx_generated>& rows() const { return rows_; }

 private:
  // One row's answer; `finish` is 0 until it ends.
  struct Answer {
    std::vector<int64_t> tokens;
    eptx_finish finish;
    Sampler sampler;
  };

  bool Extend(Decoding& decoding,
              const GenerateOptions& options);  // adds a token to every row; whether any row goes on
  std::vector<int64_t> Next() const;            // the tokens to run next
  void Describe(const std::vector<int>& tasks);

  std::shared_ptr<const Session> session_;
  std::vector<int64_t> ends_;  // tokens that end an answer
  std::vector<Answer> answers_;
  std::vector<eptx_generated> rows_;
};

}  // namespace eptx::core
