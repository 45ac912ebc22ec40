// RoutedPyramidDelta: PyramidRouter and PyramidDelta in one, for dynamic models: a node less for every module.
#include <memory>

#include "ops/delta.h"
#include "ops/operators.h"
#include "ops/pyramid.h"
#include "ops/router.h"

namespace eptx::ops {
namespace {

class RoutedPyramidDelta {
 public:
  static constexpr size_t kShared = 1;  // task_id
  static constexpr size_t kOwn = 7;     // task_embedding, gate_weight, gate_bias, a, b, kernels, sizes
  static constexpr bool kSees = true;   // similarity [rows, tasks]

  struct Module {
    std::shared_ptr<const Router> router;
    Pyramid pyramid;
    size_t out;
  };

  struct Routes {
    std::vector<int64_t> rows;  // the task id; where it is not told, a number of the row's own
    std::vector<int64_t> told;  // the task ids as they came
    std::vector<size_t> tasks;  // [modules, rows]: each module infers for itself
  };

  explicit RoutedPyramidDelta(const Node& node)
      : in_features_(static_cast<size_t>(node.Attribute("in_features"))),
        top_k_(static_cast<size_t>(std::max<int64_t>(0, node.Attribute("top_k")))) {
    if (top_k_ > kMaxExperts) Refuse("%zu experts for a task; at most %zu", top_k_, kMaxExperts);
  }

  Module ReadModule(const Tensor* own) const {
    Module module{std::make_shared<const Router>(own, top_k_), Pyramid(own + 3, in_features_), 0};
    module.out = module.pyramid.out;
    if (own[1].dim(0) > module.pyramid.experts) Refuse("the gate has more experts than there are kernels");
    return module;
  }

  Routes ReadRoutes(const Tensor* shared) const {
    const std::vector<int64_t> ids = shared[0].rows("task_id");
    Routes routes{ids, ids, {}};
    for (size_t row = 0; row < routes.rows.size(); ++row) {
      if (ids[row] < 0) routes.rows[row] = -1 - static_cast<int64_t>(row);
    }
    return routes;
  }

  void Prepare(const std::vector<Module>& modules, const Tensor& x, const Call& call, size_t further_output,
               Routes& routes) const {
    const size_t n = routes.told.size();
    if (x.last() != in_features_) Refuse("x has %zu features, not %zu", x.last(), in_features_);
    if (x.size == 0) Refuse("x is empty");
    const bool infers = std::any_of(routes.told.begin(), routes.told.end(), [](int64_t id) { return id < 0; });
    for (size_t m = 0; m < modules.size(); ++m) {
      const Router& router = *modules[m].router;
      if (router.in != in_features_) Refuse("x has %zu features; the task embeddings have %zu", x.last(), router.in);
      const int64_t shape[] = {static_cast<int64_t>(n), static_cast<int64_t>(router.tasks)};
      auto* similarity = call.Output<float>(further_output + m, shape, 2);
      std::fill_n(similarity, n * router.tasks, 0.0f);
      for (size_t row = 0; row < n; ++row) {
        float* seen = similarity + row * router.tasks;
        // A row's first position is where training marks its task.
        if (infers) router.Compare(x.floats("x") + row * (x.size / n), seen);
        routes.tasks.push_back(router.Task(routes.told[row], seen));
      }
    }
  }

  size_t Cost(const Module& module, size_t) const { return module.pyramid.Cost(top_k_); }

  size_t Scratch(const Module& module) const { return ProjectionSize(module.pyramid.rank); }

  void Apply(const Module& module, size_t m, const Routes& routes, size_t row, size_t, const Tile& tile,
             float* scratch) const noexcept {
    const Router& router = *module.router;
    const size_t task = routes.tasks[m * routes.told.size() + row];
    if (task >= router.tasks) return;  // past the last task the adapter is off
    Choice choices[kMaxExperts];
    for (size_t k = 0; k < top_k_; ++k) {
      const size_t at = task * top_k_ + k;
      choices[k] = {static_cast<size_t>(router.experts[at]), router.weights[at]};
    }
    module.pyramid.Add(choices, top_k_, tile, scratch);
  }

 private:
  size_t in_features_;
  size_t top_k_;
};

}  // namespace

void AddRoutedPyramidDelta(std::vector<Signature>& signatures) {
  AddDeltas<RoutedPyramidDelta>("RoutedPyramidDelta", signatures);
}

}  // namespace eptx::ops
