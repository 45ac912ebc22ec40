// PyramidDelta: EPT's update, y' = y + sum over k of w_k kernel_k * (B (A x[: window_k]))[o / size_k].
//
// What the pyramid's structure saves: the windows are prefixes of one another, so one pass over x gives every A x[:
// window] as a partial sum; experts of equal size have equal windows, so they share B's product and only their kernels
// are mixed; a group of `size` outputs shares one number of B's product, which is spread over them in registers while it
// is added to the base output. A row reads no more of A, B and x than its own experts' windows.
#include <algorithm>

#include "ops/delta.h"
#include "ops/operators.h"

namespace eptx::ops {
namespace {

constexpr size_t kMaxExperts = 32;  // of one task

class PyramidDelta {
 public:
  static constexpr size_t kShared = 1;  // route
  static constexpr size_t kOwn = 6;     // experts, weights, a, b, kernels, sizes

  struct Module {
    const int64_t* experts;  // [routes, top_k]
    Weights weights;         // [routes, top_k]
    Weights a;               // [features, rank]
    Weights b;               // [rank, groups]
    Weights kernels;         // [experts, out]
    const int64_t* sizes;    // [experts]
    size_t routes, top_k, features, rank, groups, expert_count, out;
    size_t smallest;  // size
  };

  struct Routes {
    std::vector<int64_t> rows;
  };

  explicit PyramidDelta(const Node& node) : in_features_(static_cast<size_t>(node.Attribute("in_features"))) {}

  Module ReadModule(const Tensor* own) const {
    Module module{};
    own[0].Ranked(2, "experts");
    module.experts = own[0].integers("experts");
    module.routes = own[0].dim(0);
    module.top_k = own[0].dim(1);
    module.weights = own[1].weights("weights", 2);
    module.a = own[2].weights("a", 2);
    module.features = own[2].dim(0);
    module.rank = own[2].dim(1);
    module.b = own[3].weights("b", 2);
    module.groups = own[3].dim(1);
    module.kernels = own[4].weights("kernels", 2);
    module.expert_count = own[4].dim(0);
    module.out = own[4].dim(1);
    own[5].Ranked(1, "sizes");
    module.sizes = own[5].integers("sizes");
    if (own[1].dims != own[0].dims) Refuse("weights and experts differ in shape");
    if (own[3].dim(0) != module.rank) Refuse("a has rank %zu, b has %zu", module.rank, own[3].dim(0));
    if (own[5].dim(0) != module.expert_count) Refuse("sizes has %zu entries", own[5].dim(0));
    if (module.top_k > kMaxExperts) Refuse("%zu experts for a task; at most %zu", module.top_k, kMaxExperts);
    module.smallest = module.out + 1;
    for (size_t e = 0; e < module.expert_count; ++e) CheckSize(module, module.sizes[e]);
    for (size_t i = 0; i < own[0].size; ++i) {
      const int64_t expert = module.experts[i];
      if (expert < 0 || expert >= static_cast<int64_t>(module.expert_count)) {
        Refuse("expert %lld of %zu", static_cast<long long>(expert), module.expert_count);
      }
    }
    return module;
  }

  Routes ReadRoutes(const Tensor* shared) const {
    shared[0].Ranked(1, "route");
    const int64_t* route = shared[0].integers("route");
    return {std::vector<int64_t>(route, route + shared[0].size)};
  }

  void Prepare(const std::vector<Module>& modules, size_t in, Routes& routes) const {
    if (in != in_features_) Refuse("x has %zu features, not %zu", in, in_features_);
    for (const Module& module : modules) {
      for (const int64_t row : routes.rows) {
        if (row < 0 || row >= static_cast<int64_t>(module.routes)) {
          Refuse("route %lld of %zu", static_cast<long long>(row), module.routes);
        }
      }
    }
  }

  size_t Cost(const Module& module, size_t in) const {
    return (in / module.smallest + module.out / module.smallest) * module.rank + module.top_k * module.out;
  }

  size_t Scratch(const Module& module) const { return ProjectionSize(module.rank); }

  void Apply(const Module& module, size_t, const Routes& routes, size_t row, size_t in, const Tile& tile,
             float* projected) const noexcept {
    const Simd& simd = BestSimd();
    const size_t route = static_cast<size_t>(routes.rows[row]);
    Expert experts[kMaxExperts];
    const size_t count = Chosen(module, route, experts);
    std::fill_n(projected, ProjectionSize(module.rank), 0.0f);
    size_t window = 0;
    // From the largest size, which has the smallest window, to the smallest.
    for (size_t first = 0; first < count;) {
      const size_t size = experts[first].size;
      WeightedKernel kernels[kMaxExperts];
      size_t same = 0;
      for (; first < count && experts[first].size == size; ++first, ++same) {
        kernels[same] = {module.kernels.row(experts[first].index), experts[first].weight};
      }
      simd.project(tile, window, in / size, module.a, module.rank, projected);
      window = in / size;
      simd.expand(tile, module.out / size, size, module.b, module.rank, projected, kernels, same);
    }
  }

 private:
  struct Expert {
    size_t index;
    size_t size;
    float weight;
  };

  void CheckSize(Module& module, int64_t size) const {
    if (size < 1) Refuse("a kernel of size %lld", static_cast<long long>(size));
    const size_t s = static_cast<size_t>(size);
    module.smallest = std::min(module.smallest, s);
    if (in_features_ / s > module.features) Refuse("a has %zu features; a window reads more", module.features);
    if (module.out / s > module.groups) Refuse("b has %zu columns; an expert reads more", module.groups);
  }

  // The experts of a route that have a weight, by falling size.
  static size_t Chosen(const Module& module, size_t route, Expert* experts) noexcept {
    size_t count = 0;
    for (size_t k = 0; k < module.top_k; ++k) {
      const float weight = Number(module.weights, route * module.top_k + k);
      if (weight == 0.0f) continue;  // NaN is not
      const size_t index = static_cast<size_t>(module.experts[route * module.top_k + k]);
      const Expert expert{index, static_cast<size_t>(module.sizes[index]), weight};
      size_t at = count++;
      for (; at > 0 && experts[at - 1].size < expert.size; --at) experts[at] = experts[at - 1];
      experts[at] = expert;
    }
    return count;
  }

  size_t in_features_;
};

}  // namespace

void AddPyramidDelta(std::vector<Signature>& signatures) { AddDeltas<PyramidDelta>("PyramidDelta", signatures); }

}  // namespace eptx::ops
