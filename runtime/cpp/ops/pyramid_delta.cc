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
    std::vector<Choice> choices;  // [routes, top_k]: the tables and the sizes in one place, read once
    size_t routes, top_k, out;
    Pyramid pyramid;
  };

  struct Routes {
    const int64_t* rows;
    size_t count;
  };

  explicit PyramidDelta(const Node& node) : in_features_(static_cast<size_t>(node.Attribute("in_features"))) {}

  Module ReadModule(const Tensor* own) const {
    Module module{};
    const int64_t* const experts = own[0].table("experts", 2);
    const Weights weights = own[1].weights("weights", 2);
    module.routes = own[0].dim(0);
    module.top_k = own[0].dim(1);
    module.pyramid = Pyramid(own + 2, in_features_);
    module.out = module.pyramid.out;
    if (own[1].dims != own[0].dims) Refuse("weights and experts differ in shape");
    if (module.top_k > kMaxExperts) Refuse("%zu experts for a task; at most %zu", module.top_k, kMaxExperts);
    module.choices.resize(own[0].size);
    for (size_t at = 0; at < own[0].size; at += module.top_k) {
      module.pyramid.Choose(experts + at, weights.at(at), module.top_k, &module.choices[at]);
    }
    return module;
  }

  Routes ReadRoutes(const Tensor* shared) const {
    shared[0].Ranked(1, "route");
    return {shared[0].integers("route"), shared[0].size};
  }

  void Prepare(Modules<Module> modules, const Tensor& x, const Call&, size_t, Routes& routes) const {
    if (x.last() != in_features_) Refuse("x has %zu features, not %zu", x.last(), in_features_);
    for (const Module& module : modules) {
      for (size_t row = 0; row < routes.count; ++row) {
        const int64_t route = routes.rows[row];
        if (route >= 0 && route < static_cast<int64_t>(module.routes)) continue;
        Refuse("route %lld of %zu", static_cast<long long>(route), module.routes);
      }
    }
  }

  size_t Cost(const Module& module, size_t) const { return module.pyramid.Cost(module.top_k); }

  size_t Scratch(const Module& module) const { return ProjectionSize(module.pyramid.rank); }

  void Apply(const Module& module, size_t, const Routes& routes, size_t row, size_t, const Tile& tile,
             float* scratch) const noexcept {
    const Choice* const choices = module.choices.data() + static_cast<size_t>(routes.rows[row]) * module.top_k;
    module.pyramid.Add(choices, module.top_k, tile, scratch);
  }

 private:
  size_t in_features_;
};

}  // namespace

void AddPyramidDelta(std::vector<Signature>& signatures) { AddDeltas<PyramidDelta>("PyramidDelta", signatures); }

}  // namespace eptx::ops
