// EPT's experts: y += sum over k of w_k kernel_k * (B (A x[: window_k]))[o / size_k].
//
// The pyramid's structure saves work. Every window is a prefix of the next larger one, so one pass over x gives all A
// x[: window] as partial sums. Experts of equal size have equal windows, so they share B's product, and only their
// kernels are mixed. A group of `size` outputs shares one number of B's product, which is spread over them in registers
// while it is added to the base output. A row reads only the windows of its own experts from A, B and x.
#pragma once

#include <algorithm>
#include <limits>

#include "ops/ort.h"

namespace eptx::ops {

constexpr size_t kMaxExperts = 32;  // of one task

// An expert that a route chose, the size of its kernel, and how much it is used.
struct Choice {
  size_t size;
  uint32_t expert;
  float weight;
};

// One module's experts.
struct Pyramid {
  Weights a;             // [features, rank]
  Weights b;             // [rank, groups]
  Weights kernels;       // [experts, out]
  const int64_t* sizes;  // [experts]
  size_t in, features, rank, groups, experts, out;
  size_t smallest;  // size

  Pyramid() = default;

  // own: a, b, kernels, sizes.
  Pyramid(const Tensor* own, size_t in_features) : in(in_features) {
    a = own[0].weights("a", 2);
    features = own[0].dim(0);
    rank = own[0].dim(1);
    b = own[1].weights("b", 2);
    groups = own[1].dim(1);
    kernels = own[2].weights("kernels", 2);
    experts = own[2].dim(0);
    out = own[2].dim(1);
    sizes = own[3].table("sizes", 1);
    if (own[1].dim(0) != rank) Refuse("a has rank %zu, b has %zu", rank, own[1].dim(0));
    if (own[3].dim(0) != experts) Refuse("sizes has %zu entries for %zu experts", own[3].dim(0), experts);
    if (features > in) Refuse("a has %zu features; x has %zu", features, in);
    smallest = std::numeric_limits<size_t>::max();
    for (size_t e = 0; e < experts; ++e) {
      if (sizes[e] < 1) Refuse("a kernel of size %lld", static_cast<long long>(sizes[e]));
      const auto size = static_cast<size_t>(sizes[e]);
      smallest = std::min(smallest, size);
      if (Window(size) > features) Refuse("a has %zu features; a window reads more", features);
      if (Groups(size) > groups) Refuse("b has %zu columns; an expert reads more", groups);
      CheckEnd(e, std::min(out, Groups(size) * size));
    }
  }

  // Numbers of a kernel past its last whole group belong to no column of b.
  void CheckEnd(size_t expert, size_t end) const {
    for (; end < out; ++end) {
      if (Number(kernels.row(expert), end) != 0.0f) Refuse("the kernel of expert %zu goes on past its groups", expert);
    }
  }

  // Whether Add takes a before b. NaN counts as a weight.
  static bool Before(const Choice& a, const Choice& b) {
    if ((a.weight != 0.0f) != (b.weight != 0.0f)) return a.weight != 0.0f;
    return a.size > b.size;
  }

  // How many features an expert reads, and over how many numbers its kernel lies; a kernel larger than the output has
  // one, and is cut at the output's end.
  size_t Window(size_t size) const { return std::max<size_t>(1, in / size); }
  size_t Groups(size_t size) const { return std::max<size_t>(1, out / size); }

  size_t Cost(size_t top_k) const { return (Window(smallest) + Groups(smallest)) * rank + top_k * out; }

  // A route's choices in Add's order: by falling size, which is by rising window; experts without weight come last.
  void Choose(const int64_t* chosen, Weights weights, size_t count, Choice* choices) const {
    for (size_t k = 0; k < count; ++k) {
      const int64_t expert = chosen[k];
      if (expert < 0 || expert >= static_cast<int64_t>(experts)) {
        Refuse("expert %lld of %zu", static_cast<long long>(expert), experts);
      }
      const Choice choice{static_cast<size_t>(sizes[expert]), static_cast<uint32_t>(expert), Number(weights, k)};
      size_t at = k;
      for (; at > 0 && Before(choice, choices[at - 1]); --at) choices[at] = choices[at - 1];
      choices[at] = choice;
    }
  }

  // Adds what a route's choices compute; `projected` is scratch of ProjectionSize(rank).
  void Add(const Choice* choices, size_t count, const Tile& tile, float* projected) const noexcept {
    const Simd& simd = BestSimd();
    while (count != 0 && choices[count - 1].weight == 0.0f) --count;
    ClearProjections(projected, tile.count, rank);
    size_t window = 0;
    for (size_t k = 0; k < count;) {
      const size_t size = choices[k].size;
      WeightedKernel mixed[kMaxExperts];
      size_t same = 0;
      for (; k < count && choices[k].size == size; ++k, ++same) {
        mixed[same] = {kernels.row(choices[k].expert), choices[k].weight};
      }
      simd.project(tile, window, Window(size), a, rank, projected);
      window = Window(size);
      simd.expand(tile, Groups(size), std::min(size, out), b, rank, projected, mixed, same);
    }
  }
};

}  // namespace eptx::ops
