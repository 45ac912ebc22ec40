// Draws the next token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "readers/request/prompts.h"

namespace eptx::core {

// Random numbers that are the same on every machine (SplitMix64).
class Random {
 public:
  explicit Random(uint64_t seed);

  double Next();  // from 0 to below 1

 private:
  uint64_t state_;
};

// Draws the tokens of one row. Tokens with equal logits keep their order.
class Sampler {
 public:
  Sampler(const Sampling& sampling, size_t row);

  // The next token, drawn by `count` logits. Throws where a logit is NaN or the largest is infinite.
  size_t Next(const float* logits, size_t count);

 private:
  size_t Draw(const float* logits, size_t count, float largest);
  size_t Nucleus(size_t among);       // the fewest first tokens that reach top_p of the mass
  void Sort(size_t from, size_t to);  // sorts a part; the tokens before `from` are sorted already
  double Mass(size_t first) const;    // the sum of the weights of the first tokens

  Sampling sampling_;
  Random random_;
  std::vector<double> weights_;  // by token
  std::vector<size_t> order_;    // tokens, of which the first are sorted by weight
};

}  // namespace eptx::core
