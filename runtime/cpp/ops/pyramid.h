// EPT's experts: y += sum over k of w_k kernel_k * (B (A x[: window_k]))[o / size_k].
//
// What the pyramid's structure saves: the windows are prefixes of one another, so one pass over x gives every A x[:
// window] as a partial sum; experts of equal size have equal windows, so they share B's product and only their kernels
// are mixed; a group of `size` outputs shares one number of B's product, which is spread over them in registers while
// it is added to the base output. A row reads no more of A, B and x than its own experts' windows.
#pragma once

#include <algorithm>
#include <limits>

#include "ops/ort.h"

namespace eptx::ops {

constexpr size_t kMaxExperts = 32;  // of one task

// An expert that a route chose.
struct Choice {
  size_t expert;
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
    own[3].Ranked(1, "sizes");
    sizes = own[3].integers("sizes");
    if (own[1].dim(0) != rank) Refuse("a has rank %zu, b has %zu", rank, own[1].dim(0));
    if (own[3].dim(0) != experts) Refuse("sizes has %zu entries for %zu experts", own[3].dim(0), experts);
    smallest = std::numeric_limits<size_t>::max();
    for (size_t e = 0; e < experts; ++e) {
      if (sizes[e] < 1) Refuse("a kernel of size %lld", static_cast<long long>(sizes[e]));
      const auto size = static_cast<size_t>(sizes[e]);
      smallest = std::min(smallest, size);
      if (in / size > features) Refuse("a has %zu features; a window reads more", features);
      if (out / size > groups) Refuse("b has %zu columns; an expert reads more", groups);
    }
  }

  size_t Cost(size_t top_k) const { return (in / smallest + out / smallest) * rank + top_k * out; }

  // Sorts the choices and adds what they compute; `projected` is scratch of ProjectionSize(rank).
  void Add(Choice* choices, size_t count, const Tile& tile, float* projected) const noexcept {
    const Simd& simd = BestSimd();
    // By falling size, which is rising window.
    for (size_t k = 1; k < count; ++k) {
      for (size_t at = k; at > 0 && sizes[choices[at - 1].expert] < sizes[choices[at].expert]; --at) {
        std::swap(choices[at - 1], choices[at]);
      }
    }
    std::fill_n(projected, ProjectionSize(rank), 0.0f);
    size_t window = 0;
    for (size_t k = 0; k < count;) {
      const int64_t of = sizes[choices[k].expert];
      WeightedKernel mixed[kMaxExperts];
      size_t same = 0;
      for (; k < count && sizes[choices[k].expert] == of; ++k, ++same) {
        mixed[same] = {kernels.row(choices[k].expert), choices[k].weight};
      }
      const auto size = static_cast<size_t>(of);
      simd.project(tile, window, in / size, a, rank, projected);
      window = in / size;
      simd.expand(tile, out / size, size, b, rank, projected, mixed, same);
    }
  }
};

}  // namespace eptx::ops
