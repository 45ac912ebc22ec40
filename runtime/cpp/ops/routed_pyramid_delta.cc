// RoutedPyramidDelta: PyramidRouter and PyramidDelta in one node, for dynamic models. It saves a node for every module.
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
    std::vector<Choice> choices;  // [tasks, top_k]
    size_t out;
  };

  struct Routes {
    const int64_t* told;           // the task ids of the call
    const int64_t* rows;           // those, or `own` where some tasks are inferred
    size_t count;
    std::vector<int64_t> own;      // the task id, or a number of the row's own where the task is inferred
    std::vector<size_t> inferred;  // [modules, rows], where some tasks are inferred: each module infers for itself
  };

  explicit RoutedPyramidDelta(const Node& node)
      : in_features_(static_cast<size_t>(node.Attribute("in_features"))),
        top_k_(static_cast<size_t>(std::max<int64_t>(0, node.Attribute("top_k")))) {
    if (top_k_ > kMaxExperts) Refuse("%zu experts for a task; at most %zu", top_k_, kMaxExperts);
  }

  Module ReadModule(const Tensor* own) const {
    Module module{std::make_shared<const Router>(own, top_k_), Pyramid(own + 3, in_features_), {}, 0};
    module.out = module.pyramid.out;
    if (own[1].dim(0) > module.pyramid.experts) Refuse("the gate has more experts than there are kernels");
    const Router& router = *module.router;
    module.choices.resize(router.experts.size());
    for (size_t at = 0; at < router.experts.size(); at += top_k_) {
      module.pyramid.Choose(&router.experts[at], {&router.weights[at], false, top_k_}, top_k_, &module.choices[at]);
    }
    return module;
  }

  Routes ReadRoutes(const Tensor* shared) const {
    shared[0].Ranked(1, "task_id");
    const int64_t* const told = shared[0].integers("task_id");
    Routes routes{told, told, shared[0].size, {}, {}};
    if (std::none_of(told, told + routes.count, [](int64_t id) { return id < 0; })) return routes;
    for (size_t row = 0; row < routes.count; ++row) {
      routes.own.push_back(told[row] < 0 ? -1 - static_cast<int64_t>(row) : told[row]);
    }
    routes.rows = routes.own.data();
    return routes;
  }

  void Prepare(Modules<Module> modules, const Tensor& x, const Call& call, size_t further_output,
               Routes& routes) const {
    const size_t n = routes.count;
    if (x.last() != in_features_) Refuse("x has %zu features, not %zu", x.last(), in_features_);
    if (x.size == 0) Refuse("x is empty");
    for (size_t m = 0; m < modules.count; ++m) {
      const Router& router = *modules[m].router;
      if (router.in != in_features_) Refuse("x has %zu features; the task embeddings have %zu", x.last(), router.in);
      const int64_t shape[] = {static_cast<int64_t>(n), static_cast<int64_t>(router.tasks)};
      auto* similarity = call.Output<float>(further_output + m, shape, 2);
      std::fill_n(similarity, Product(n, router.tasks), 0.0f);
      for (size_t row = 0; row < n && !routes.own.empty(); ++row) {
        float* seen = similarity + row * router.tasks;
        // Training marks a row's task at its first position.
        router.Compare(x.floats("x") + row * (x.size / n), seen);
        routes.inferred.push_back(router.Task(routes.told[row], seen));
      }
    }
  }

  size_t Cost(const Module& module, size_t) const { return module.pyramid.Cost(top_k_); }

  size_t Scratch(const Module& module) const { return ProjectionSize(module.pyramid.rank); }

  void Apply(const Module& module, size_t m, const Routes& routes, size_t row, size_t, const Tile& tile,
             float* scratch) const noexcept {
    const size_t task = routes.own.empty() ? static_cast<size_t>(routes.told[row])
                                           : routes.inferred[m * routes.count + row];
    if (task >= module.router->tasks) return;  // past the last task the adapter is off
    module.pyramid.Add(&module.choices[task * top_k_], top_k_, tile, scratch);
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
