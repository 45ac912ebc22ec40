// The arithmetic of the operators, one table of functions for each instruction set; see docs/kernels.md.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ops/sizes.h"

namespace eptx::ops {

// How many tokens are computed together: each weight that is loaded serves all of them.
constexpr size_t kTile = 8;

// A tile's projections, u: kRankBlock numbers of every token, then the next kRankBlock of every token. With a stride
// that is known when the library is compiled, all tokens are read through one address.
constexpr size_t kRankBlock = 64;

// Floats of u, and where rank r of a token is.
inline size_t ProjectionSize(size_t rank) { return Product(Sum(rank, kRankBlock - 1) / kRankBlock, kRankBlock, kTile); }
constexpr size_t ProjectionIndex(size_t token, size_t r) {
  return r / kRankBlock * kRankBlock * kTile + token * kRankBlock + r % kRankBlock;
}

// Makes the projections of some tokens zero, without touching those of the tile's other places.
inline void ClearProjections(float* u, size_t tokens, size_t rank) {
  for (size_t r = 0; r < rank; r += kRankBlock) std::fill_n(u + ProjectionIndex(0, r), tokens * kRankBlock, 0.0f);
}

// A few tokens that go through the same weights: their inputs, and the outputs that are added to.
//
// By the time an update runs, the product that it is added to has left the processor's nearer caches, and a tile's rows
// are too short for the hardware to foresee the next. So while a tile's outputs are added to, those of the tile behind
// it are fetched: a third of the time of an update of 384 features.
struct Tile {
  const float* x[kTile];
  float* y[kTile];
  size_t count;
  size_t next_y = 0;  // floats from an output to the one a tile on; 0: there is none
};

// A matrix of adapter weights as the model stores it, float32 or (half) float16.
struct Weights {
  const void* data;
  bool half;
  size_t stride;  // numbers from one row to the next

  Weights row(size_t index) const { return at(index * stride); }
  Weights at(size_t offset) const {
    return {static_cast<const char*>(data) + offset * (half ? 2 : 4), half, stride};
  }
};

// An expert's kernel, laid flat over the outputs, and how much the row's task uses it.
struct WeightedKernel {
  Weights kernel;
  float weight;
};

struct Simd {
  const char* name;

  // u[t, r] += sum over begin <= i < end of x[t][i] a[i, r].
  void (*project)(const Tile& tile, size_t begin, size_t end, Weights a, size_t rank, float* u);

  // y[t][o] += bias[o].
  void (*bias)(const Tile& tile, size_t out, Weights bias);

  // y[t][o] += sum over r of u[t, r] b[r, o].
  void (*add)(const Tile& tile, size_t out, Weights b, size_t rank, const float* u);

  // y[t][o] += (sum over k of weight_k kernel_k[o]) (sum over r of u[t, r] b[r, o / size]) for o < groups * size.
  void (*expand)(const Tile& tile, size_t groups, size_t size, Weights b, size_t rank, const float* u,
                 const WeightedKernel* kernels, size_t kernel_count);

  // y[i] += a x[i].
  void (*axpy)(size_t n, float a, Weights x, float* y);

  // Sum of x[i] w[i].
  float (*dot)(size_t n, const float* x, Weights w);

  // shares[e * kTile + t] = softmax over e of sum over i < in of x[t][i] gate[e, i], experts * kTile numbers.
  void (*share)(const Tile& tile, size_t in, Weights gate, size_t experts, float* shares);
};

// One number of a matrix.
float Number(Weights weights, size_t index) noexcept;

// The best that this processor has.
const Simd& BestSimd() noexcept;

// The instruction sets that this processor has and this library was built for, best first; for tests.
size_t AllSimd(const Simd** tables, size_t capacity) noexcept;

}  // namespace eptx::ops
