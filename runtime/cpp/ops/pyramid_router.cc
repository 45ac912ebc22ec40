// PyramidRouter: the experts and weights of each row's task, which is given or inferred from x.
#include <optional>

#include "ops/operators.h"
#include "ops/router.h"

namespace eptx::ops {
namespace {

class PyramidRouter final : public Kernel {
 public:
  PyramidRouter(const Node& node, const Signature&)
      : top_k_(static_cast<size_t>(std::max<int64_t>(0, node.Attribute("top_k")))) {
    Tensor own[3];
    for (size_t i = 0; i < 3; ++i) {
      const std::optional<Tensor> constant = node.Constant(2 + i);
      if (!constant) return;
      own[i] = *constant;
    }
    router_.emplace(own, top_k_);
  }

  void Compute(const Call& call) const override {
    if (router_) return Route(call, *router_);
    Tensor own[3];
    for (size_t i = 0; i < 3; ++i) own[i] = call.Input(2 + i);
    Route(call, Router(own, top_k_));
  }

 private:
  void Route(const Call& call, const Router& router) const {
    const Tensor task_id = call.Input(0), x = call.Input(1);
    task_id.Ranked(1, "task_id");
    const int64_t* ids = task_id.integers("task_id");
    const size_t n = task_id.size;
    const bool infers = std::any_of(ids, ids + n, [](int64_t id) { return id < 0; });
    if (n == 0 || x.size == 0 || x.size % Product(n, x.last()) != 0) {
      Refuse("x has %zu numbers for %zu rows", x.size, n);
    }
    if (x.last() != router.in) Refuse("x has %zu features; the task embeddings have %zu", x.last(), router.in);
    const auto rows = static_cast<int64_t>(n);
    const int64_t route[] = {rows, static_cast<int64_t>(top_k_)}, seen[] = {rows, static_cast<int64_t>(router.tasks)};
    auto* experts = call.Output<int64_t>(0, route, 2);
    auto* weights = call.Output<float>(1, route, 2);
    auto* similarity = call.Output<float>(2, seen, 2);
    std::fill_n(similarity, Product(n, router.tasks), 0.0f);
    for (size_t row = 0; row < n; ++row) {
      float* seen_by_row = similarity + row * router.tasks;
      // Training marks a row's task at its first position.
      if (infers) router.Compare(x.floats("x") + row * (x.size / n), seen_by_row);
      const size_t task = router.Task(ids[row], seen_by_row);
      const bool active = task < router.tasks;  // past the last task the adapter is off
      const size_t from = std::min(task, router.tasks - 1) * top_k_;
      std::copy_n(&router.experts[from], top_k_, experts + row * top_k_);
      for (size_t k = 0; k < top_k_; ++k) weights[row * top_k_ + k] = active ? router.weights[from + k] : 0.0f;
    }
  }

  size_t top_k_;
  std::optional<Router> router_;
};

}  // namespace

void AddPyramidRouter(std::vector<Signature>& signatures) {
  Signature signature;
  signature.name = "PyramidRouter";
  signature.inputs = {kInt64, kFloat, kAny, kAny, kAny};
  signature.outputs = {kInt64, kFloat, kFloat};
  signature.make = [](const Node& node, const Signature& s) -> std::unique_ptr<Kernel> {
    return std::make_unique<PyramidRouter>(node, s);
  };
  signatures.push_back(std::move(signature));
}

}  // namespace eptx::ops
