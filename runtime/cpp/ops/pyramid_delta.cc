// PyramidDelta: EPT's update of y, each row through the experts that a table gives its route.
#include "ops/pyramid.h"

#include "ops/delta.h"
#include "ops/operators.h"

namespace eptx::ops {
namespace {

class PyramidDelta {
 public:
  static constexpr size_t kShared = 1;  // route
  static constexpr size_t kOwn = 6;     // experts, weights, a, b, kernels, sizes
  static constexpr bool kSees = false;

  struct Module {
    const int64_t* experts;  // [routes, top_k]
    Weights weights;         // [routes, top_k]
    size_t routes, top_k, out;
    Pyramid pyramid;
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
    module.pyramid = Pyramid(own + 2, in_features_);
    module.out = module.pyramid.out;
    if (own[1].dims != own[0].dims) Refuse("weights and experts differ in shape");
    if (module.top_k > kMaxExperts) Refuse("%zu experts for a task; at most %zu", module.top_k, kMaxExperts);
    for (size_t i = 0; i < own[0].size; ++i) {
      const int64_t expert = module.experts[i];
      if (expert < 0 || expert >= static_cast<int64_t>(module.pyramid.experts)) {
        Refuse("expert %lld of %zu", static_cast<long long>(expert), module.pyramid.experts);
      }
    }
    return module;
  }

  Routes ReadRoutes(const Tensor* shared) const { return {shared[0].rows("route")}; }

  void Prepare(const std::vector<Module>& modules, const Tensor& x, const Call&, size_t, Routes& routes) const {
    if (x.last() != in_features_) Refuse("x has %zu features, not %zu", x.last(), in_features_);
    for (const Module& module : modules) {
      for (const int64_t row : routes.rows) {
        if (row < 0 || row >= static_cast<int64_t>(module.routes)) {
          Refuse("route %lld of %zu", static_cast<long long>(row), module.routes);
        }
      }
    }
  }

  size_t Cost(const Module& module, size_t) const { return module.pyramid.Cost(module.top_k); }

  size_t Scratch(const Module& module) const { return ProjectionSize(module.pyramid.rank); }

  void Apply(const Module& module, size_t, const Routes& routes, size_t row, size_t, const Tile& tile,
             float* scratch) const noexcept {
    const size_t first = static_cast<size_t>(routes.rows[row]) * module.top_k;
    Choice choices[kMaxExperts];
    size_t count = 0;
    for (size_t k = 0; k < module.top_k; ++k) {
      const float weight = Number(module.weights, first + k);
      if (weight != 0.0f) choices[count++] = {static_cast<size_t>(module.experts[first + k]), weight};  // NaN counts
    }
    module.pyramid.Add(choices, count, tile, scratch);
  }

 private:
  size_t in_features_;
};

}  // namespace

void AddPyramidDelta(std::vector<Signature>& signatures) { AddDeltas<PyramidDelta>("PyramidDelta", signatures); }

}  // namespace eptx::ops
