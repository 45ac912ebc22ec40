// PyramidRouter: p = softmax(G tau + g), the K largest of p, and softmax of those again; which task where it is not told.
//
// A route depends on the task alone. Where the router's weights are constants of the model, as they are in a bundle,
// the routes of all tasks are computed once, when the session opens, and a call that names its tasks only copies.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "ops/operators.h"

namespace eptx::ops {
namespace {

constexpr float kTiny = 1e-12f;

// One module's router, and the routes of its tasks.
struct Router {
  Weights embedding;  // [tasks, in]
  size_t tasks, in, top_k;
  std::vector<int64_t> experts;  // [tasks, top_k]
  std::vector<float> weights;    // [tasks, top_k]
  std::vector<float> lengths;    // of the embeddings

  Router(const Tensor* own, size_t k) : embedding(own[0].weights("task_embedding", 2)), top_k(k) {
    tasks = own[0].dim(0);
    in = own[0].dim(1);
    const Weights gate = own[1].weights("gate_weight", 2), bias = own[2].weights("gate_bias", 1);
    const size_t count = own[1].dim(0);
    if (own[1].dim(1) != in || own[2].dim(0) != count) Refuse("the gate does not fit the task embeddings");
    if (tasks == 0 || top_k == 0 || top_k > count) Refuse("the %zu best of %zu experts for %zu tasks", k, count, tasks);
    std::vector<float> tau(in), p(count);
    for (size_t task = 0; task < tasks; ++task) {
      for (size_t i = 0; i < in; ++i) tau[i] = Number(embedding, task * in + i);
      for (size_t e = 0; e < count; ++e) p[e] = BestSimd().dot(in, tau.data(), gate.row(e)) + Number(bias, e);
      Softmax(p);
      Choose(p);
      lengths.push_back(std::sqrt(BestSimd().dot(in, tau.data(), {tau.data(), false, in})));
    }
  }

 private:
  static void Softmax(std::vector<float>& p) {
    const float top = *std::max_element(p.begin(), p.end());
    float sum = 0;
    for (float& value : p) sum += value = std::exp(value - top);
    for (float& value : p) value /= sum;
  }

  void Choose(const std::vector<float>& p) {
    std::vector<int64_t> order(p.size());
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)];
    });
    std::vector<float> mixing;
    for (size_t k = 0; k < top_k; ++k) mixing.push_back(p[static_cast<size_t>(order[k])]);
    Softmax(mixing);
    experts.insert(experts.end(), order.begin(), order.begin() + static_cast<std::ptrdiff_t>(top_k));
    weights.insert(weights.end(), mixing.begin(), mixing.end());
  }
};

class PyramidRouter final : public Kernel {
 public:
  PyramidRouter(const Node& node, const Signature& signature)
      : top_k_(static_cast<size_t>(std::max<int64_t>(0, node.Attribute("top_k")))), routers_(signature.modules) {
    for (size_t m = 0; m < routers_.size(); ++m) {
      Tensor own[3];
      bool all = true;
      for (size_t i = 0; i < 3; ++i) all = all && node.Constant(2 + 3 * m + i, &own[i]);
      if (all) routers_[m].emplace(own, top_k_);
    }
  }

  void Compute(const Call& call) const override {
    const Tensor task_id = call.Input(0), x = call.Input(1);
    task_id.Ranked(1, "task_id");
    const int64_t* ids = task_id.integers("task_id");
    const size_t n = task_id.size;
    const bool infers = std::any_of(ids, ids + n, [](int64_t id) { return id < 0; });
    if (n == 0 || x.last() == 0 || x.size % (n * x.last()) != 0) Refuse("x has %zu numbers for %zu rows", x.size, n);
    for (size_t m = 0; m < routers_.size(); ++m) {
      if (routers_[m]) {
        Route(call, m, *routers_[m], ids, n, x, infers);
      } else {
        Tensor own[3];
        for (size_t i = 0; i < 3; ++i) own[i] = call.Input(2 + 3 * m + i);
        Route(call, m, Router(own, top_k_), ids, n, x, infers);
      }
    }
  }

 private:
  void Route(const Call& call, size_t m, const Router& router, const int64_t* ids, size_t n, const Tensor& x,
             bool infers) const {
    if (x.last() != router.in) Refuse("x has %zu features; the task embeddings have %zu", x.last(), router.in);
    const auto rows = static_cast<int64_t>(n);
    const int64_t route[] = {rows, static_cast<int64_t>(top_k_)}, seen[] = {rows, static_cast<int64_t>(router.tasks)};
    auto* experts = call.Output<int64_t>(3 * m, route, 2);
    auto* weights = call.Output<float>(3 * m + 1, route, 2);
    auto* similarity = call.Output<float>(3 * m + 2, seen, 2);
    std::fill_n(similarity, n * router.tasks, 0.0f);
    const size_t stride = x.size / n;  // a row's first position is where training marks its task
    for (size_t row = 0; row < n; ++row) {
      float* seen_by_row = similarity + row * router.tasks;
      if (infers) Compare(router, x.floats("x") + row * stride, seen_by_row);
      const bool told = ids[row] >= 0;
      const size_t task = told ? static_cast<size_t>(ids[row])
                               : static_cast<size_t>(std::max_element(seen_by_row, seen_by_row + router.tasks) -
                                                     seen_by_row);
      const bool active = task < router.tasks;  // past the last task the adapter is off
      const size_t from = std::min(task, router.tasks - 1) * top_k_;
      std::copy_n(&router.experts[from], top_k_, experts + row * top_k_);
      for (size_t k = 0; k < top_k_; ++k) weights[row * top_k_ + k] = active ? router.weights[from + k] : 0.0f;
    }
  }

  static void Compare(const Router& router, const float* first, float* similarity) {
    const float length = std::max(std::sqrt(BestSimd().dot(router.in, first, {first, false, router.in})), kTiny);
    for (size_t task = 0; task < router.tasks; ++task) {
      const float product = BestSimd().dot(router.in, first, router.embedding.row(task));
      similarity[task] = product / std::max(router.lengths[task], kTiny) / length;
    }
  }

  size_t top_k_;
  std::vector<std::optional<Router>> routers_;
};

}  // namespace

void AddPyramidRouter(std::vector<Signature>& signatures) {
  for (size_t modules = 1; modules <= kMaxModules; ++modules) {
    Signature signature;
    signature.name = modules == 1 ? "PyramidRouter" : "PyramidRouter" + std::to_string(modules);
    signature.modules = modules;
    signature.inputs = {kInt64, kFloat};
    signature.inputs.insert(signature.inputs.end(), 3 * modules, kAny);
    for (size_t m = 0; m < modules; ++m) signature.outputs.insert(signature.outputs.end(), {kInt64, kFloat, kFloat});
    signature.make = [](const Node& node, const Signature& s) -> std::unique_ptr<Kernel> {
      return std::make_unique<PyramidRouter>(node, s);
    };
    signatures.push_back(std::move(signature));
  }
}

}  // namespace eptx::ops
