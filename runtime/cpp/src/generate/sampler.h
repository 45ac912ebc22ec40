// Which token comes next.
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

// Takes one row's tokens. Equal logits are in the order of their tokens.
class Sampler {
 public:
  Sampler(const Sampling& sampling, size_t row);

  // The token after `count` logits; throws where they are no numbers.
  size_t Next(const float* logits, size_t count);

 private:
  size_t Draw(const float* logits, size_t count, float largest);
  size_t Nucleus(size_t among);          // how many of the first tokens are the fewest that reach top_p of their mass
  void Sort(size_t from, size_t to);     // puts the largest in place, where those before `from` are
  double Mass(size_t first) const;       // the weights of the first tokens

  Sampling sampling_;
  Random random_;
  std::vector<double> weights_;  // by token
  std::vector<size_t> order_;    // tokens, of which the first are sorted by weight
};

}  // namespace eptx::core
