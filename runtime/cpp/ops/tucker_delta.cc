// TuckerDelta: TuckA's update, y' = y + ((x u) M) p with M = sum over t of a_t (sum over q of c[t, q] g[group, q]).
//
// A call computes M [rank, rank] once for each route and module: the planes of the group, weighted by a c.
#include <algorithm>
#include <numeric>

#include "ops/delta.h"
#include "ops/operators.h"

namespace eptx::ops {
namespace {

class TuckerDelta {
 public:
  static constexpr size_t kShared = 2;  // group, weights
  static constexpr size_t kOwn = 4;     // u, g, c, p
  static constexpr bool kSees = false;

  struct Module {
    Weights u;  // [in, rank]
    Weights g;  // [groups, planes, rank, rank]
    Weights c;  // [experts, planes]
    Weights p;  // [rank, out]
    size_t in, rank, groups, planes, experts, out;
  };

  struct Routes {
    std::vector<int64_t> own;  // the index of each row's route: the same for all rows, or one for each
    const int64_t* rows;       // the same
    size_t count;
    const int64_t* groups;       // [routes]
    Weights weights;             // [routes, experts]
    size_t experts;
    std::vector<float> mixed;                 // M of every module and route
    std::vector<size_t> first;                // the first number of each module in it
  };

  explicit TuckerDelta(const Node&) {}

  Module ReadModule(const Tensor* own) const {
    Module module{};
    module.u = own[0].weights("u", 2);
    module.g = own[1].weights("g", 4);
    module.c = own[2].weights("c", 2);
    module.p = own[3].weights("p", 2);
    module.in = own[0].dim(0);
    module.rank = own[0].dim(1);
    module.groups = own[1].dim(0);
    module.planes = own[1].dim(1);
    module.experts = own[2].dim(0);
    module.out = own[3].dim(1);
    if (own[1].dim(2) != module.rank || own[1].dim(3) != module.rank || own[3].dim(0) != module.rank) {
      Refuse("u, g and p differ in rank");
    }
    if (own[2].dim(1) != module.planes) Refuse("c and g differ in planes");
    return module;
  }

  Routes ReadRoutes(const Tensor* shared) const {
    shared[0].Ranked(1, "group");
    Routes routes{};
    routes.groups = shared[0].integers("group");
    routes.weights = shared[1].numbers("weights", 2);
    routes.experts = shared[1].dim(1);
    if (shared[1].dim(0) != shared[0].size) Refuse("group and weights differ in rows");
    routes.count = shared[0].size;
    routes.own.resize(routes.count);
    std::iota(routes.own.begin(), routes.own.end(), int64_t{0});
    routes.rows = routes.own.data();
    return routes;
  }

  void Prepare(Modules<Module> modules, const Tensor& x, const Call&, size_t, Routes& routes) const {
    size_t total = 0;
    for (const Module& module : modules) {
      if (x.last() != module.in) Refuse("x has %zu features; u has %zu", x.last(), module.in);
      if (routes.experts != module.experts) Refuse("%zu weights for %zu experts", routes.experts, module.experts);
      routes.first.push_back(total);
      total = Sum(total, Product(routes.count, module.rank, module.rank));
    }
    if (x.size == 0) return;  // no token will ask for a route
    routes.mixed.assign(total, 0.0f);
    for (size_t m = 0; m < modules.count; ++m) {
      for (size_t row = 0; row < routes.count; ++row) Mix(modules[m], routes, m, row);
    }
  }

  size_t Cost(const Module& module, size_t in) const { return (in + module.rank + module.out) * module.rank; }

  size_t Scratch(const Module& module) const { return Product(2, ProjectionSize(module.rank)); }

  void Apply(const Module& module, size_t m, const Routes& routes, size_t row, size_t in, const Tile& tile,
             float* scratch) const noexcept {
    const Simd& simd = BestSimd();
    const size_t rank = module.rank;
    const float* mixed = &routes.mixed[routes.first[m] + row * rank * rank];
    float* inner = scratch + ProjectionSize(rank);
    ClearProjections(scratch, tile.count, rank);
    ClearProjections(inner, tile.count, rank);
    simd.project(tile, 0, in, module.u, rank, scratch);
    for (size_t r = 0; r < rank; r += kRankBlock) {
      Tile block;
      block.count = tile.count;
      for (size_t t = 0; t < tile.count; ++t) block.x[t] = scratch + ProjectionIndex(t, r);
      simd.project(block, 0, std::min(rank - r, kRankBlock), {mixed + r * rank, false, rank}, rank, inner);
    }
    simd.add(tile, module.out, module.p, rank, inner);
  }

 private:
  static void Mix(const Module& module, Routes& routes, size_t m, size_t row) {
    const int64_t group = routes.groups[row];
    if (group < 0 || group >= static_cast<int64_t>(module.groups)) {
      Refuse("group %lld of %zu", static_cast<long long>(group), module.groups);
    }
    const size_t square = module.rank * module.rank;
    float* mixed = &routes.mixed[routes.first[m] + row * square];
    for (size_t q = 0; q < module.planes; ++q) {
      float weight = 0;
      for (size_t t = 0; t < module.experts; ++t) {
        weight += Number(routes.weights, row * module.experts + t) * Number(module.c, t * module.planes + q);
      }
      BestSimd().axpy(square, weight, module.g.at((static_cast<size_t>(group) * module.planes + q) * square), mixed);
    }
  }
};

}  // namespace

void AddTuckerDelta(std::vector<Signature>& signatures) { AddDeltas<TuckerDelta>("TuckerDelta", signatures); }

}  // namespace eptx::ops
