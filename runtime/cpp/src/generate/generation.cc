#include "generate/generation.h"

#include <algorithm>

namespace eptx::core {
namespace {

constexpr eptx_finish kGoesOn{};

}  // namespace

Generation::Generation(std::shared_ptr<const Session> session, const eptx_prompts& given,
                       const eptx_generate_options& wanted)
    : session_(std::move(session)) {
  const Manifest& m = session_->manifest();
  const Decoder decoder = FindDecoder(m, session_->operators());
  const GenerateOptions options = ReadOptions(wanted);
  const Prompts prompts = ReadPrompts(given, session_->limits(), options.max_new_tokens);
  ends_ = m.generation->eos;
  ends_.insert(ends_.end(), options.stop.begin(), options.stop.end());
  for (size_t row = 0; row < prompts.rows.size(); ++row) {
    answers_.push_back({{}, kGoesOn, Sampler(options.sampling, row)});
  }
  Decoding decoding(*session_, decoder, prompts, given, options.max_new_tokens);
  while (Extend(decoding, options)) decoding.Step(Next());
  Describe(decoding.tasks());
}

bool Generation::Extend(Decoding& decoding, const GenerateOptions& options) {
  bool any = false;
  for (size_t row = 0; row < answers_.size(); ++row) {
    Answer& answer = answers_[row];
    if (answer.finish != kGoesOn) continue;
    const auto token = static_cast<int64_t>(answer.sampler.Next(decoding.Logits(row), decoding.vocabulary()));
    answer.tokens.push_back(token);
    if (std::count(ends_.begin(), ends_.end(), token) != 0) {
      answer.finish = EPTX_FINISH_STOP;
    } else if (static_cast<int64_t>(answer.tokens.size()) == options.max_new_tokens) {
      answer.finish = EPTX_FINISH_LENGTH;
    }
    if (options.on_token != nullptr && options.on_token(options.context, row, token) != 0) return false;
    any = any || answer.finish == kGoesOn;
  }
  return any;
}

std::vector<int64_t> Generation::Next() const {
  std::vector<int64_t> tokens;
  for (const Answer& answer : answers_) {
    tokens.push_back(answer.finish == kGoesOn ? answer.tokens.back() : session_->manifest().generation->pad);
  }
  return tokens;
}

void Generation::Describe(const std::vector<int>& tasks) {
  for (size_t row = 0; row < answers_.size(); ++row) {
    const Answer& answer = answers_[row];
    const eptx_task* const task =
        tasks[row] < 0 ? nullptr : &session_->description().tasks[static_cast<size_t>(tasks[row])];
    rows_.push_back({sizeof(eptx_generated), answer.tokens.data(), answer.tokens.size(),
                     answer.finish == kGoesOn ? EPTX_FINISH_CALLER : answer.finish, task});
  }
}

}  // namespace eptx::core
