// LowRankDelta: LoRA's update, y' = y + (x a[task]) b[task], each row through its own task's pair of factors.
#include <algorithm>

#include "ops/delta.h"
#include "ops/operators.h"

namespace eptx::ops {
namespace {

class LowRankDelta {
 public:
  static constexpr size_t kShared = 1;  // route
  static constexpr size_t kOwn = 2;     // a, b
  static constexpr bool kSees = false;

  struct Module {
    Weights a;  // [tasks, in, rank]
    Weights b;  // [tasks, rank, out]
    size_t tasks, in, rank, out;
  };

  struct Routes {
    const int64_t* rows;
    size_t count;
  };

  explicit LowRankDelta(const Node&) {}

  Module ReadModule(const Tensor* own) const {
    Module module{};
    module.a = own[0].weights("a", 3);
    module.b = own[1].weights("b", 3);
    module.tasks = own[0].dim(0);
    module.in = own[0].dim(1);
    module.rank = own[0].dim(2);
    module.out = own[1].dim(2);
    if (own[1].dim(0) != module.tasks || own[1].dim(1) != module.rank) Refuse("a and b do not fit each other");
    return module;
  }

  Routes ReadRoutes(const Tensor* shared) const {
    shared[0].Ranked(1, "route");
    return {shared[0].integers("route"), shared[0].size};
  }

  void Prepare(Modules<Module> modules, const Tensor& x, const Call&, size_t, Routes& routes) const {
    for (const Module& module : modules) {
      if (x.last() != module.in) Refuse("x has %zu features; a has %zu", x.last(), module.in);
    }
    for (size_t row = 0; row < routes.count; ++row) {
      if (routes.rows[row] < 0) Refuse("route %lld", static_cast<long long>(routes.rows[row]));
    }
  }

  size_t Cost(const Module& module, size_t in) const { return (in + module.out) * module.rank; }

  size_t Scratch(const Module& module) const { return ProjectionSize(module.rank); }

  void Apply(const Module& module, size_t, const Routes& routes, size_t row, size_t in, const Tile& tile,
             float* projected) const noexcept {
    const size_t task = static_cast<size_t>(routes.rows[row]);
    if (task >= module.tasks) return;  // past the last task the adapter is off
    const Simd& simd = BestSimd();
    ClearProjections(projected, tile.count, module.rank);
    simd.project(tile, 0, in, module.a.at(task * in * module.rank), module.rank, projected);
    simd.add(tile, module.out, module.b.at(task * module.rank * module.out), module.rank, projected);
  }
};

}  // namespace

void AddLowRankDelta(std::vector<Signature>& signatures) { AddDeltas<LowRankDelta>("LowRankDelta", signatures); }

}  // namespace eptx::ops
