// PooledMixtureDelta: y' = y + (x a) (the sum over e of w_e b_e), w the mean of softmax(gate (x a)) over the positions of
// a row that count.
//
// The mean needs the projections of all tokens, so these are computed before any output, and kept.
#include <algorithm>
#include <numeric>

#include "ops/delta.h"
#include "ops/mask.h"
#include "ops/operators.h"
#include "ops/softmax.h"

namespace eptx::ops {
namespace {

class PooledMixtureDelta {
 public:
  static constexpr size_t kShared = 1;  // mask
  static constexpr size_t kOwn = 3;     // gate, a, b
  static constexpr bool kSees = false;

  struct Module {
    Weights gate;  // [experts, rank]
    Weights a;     // [in, rank]
    Weights b;     // [experts, rank, out]
    size_t experts, in, rank, out;
  };

  struct Routes {
    std::vector<int64_t> own;  // the index of each row's route
    const int64_t* rows;       // the same
    size_t count;
    Tensor mask;     // [rows, length]
    const float* x;  // the first token
    size_t length, tiles;                   // of a row
    std::vector<std::vector<float>> u;      // of every module, the projections of every tile
    std::vector<std::vector<float>> mixed;  // of every module, the factor [rank, out] of every row
  };

  explicit PooledMixtureDelta(const Node&) {}

  Module ReadModule(const Tensor* own) const {
    Module module{};
    module.gate = own[0].weights("gate", 2);
    module.a = own[1].weights("a", 2);
    module.b = own[2].weights("b", 3);
    module.experts = own[2].dim(0);
    module.rank = own[2].dim(1);
    module.out = own[2].dim(2);
    module.in = own[1].dim(0);
    if (own[1].dim(1) != module.rank) Refuse("a and b do not fit each other");
    if (own[0].dim(0) != module.experts || own[0].dim(1) != module.rank) Refuse("gate does not fit a and b");
    return module;
  }

  Routes ReadRoutes(const Tensor* shared) const {
    shared[0].Ranked(2, "mask");
    Routes routes{};
    routes.mask = shared[0];
    routes.count = shared[0].dim(0);
    routes.length = shared[0].dim(1);
    routes.own.resize(routes.count);
    std::iota(routes.own.begin(), routes.own.end(), int64_t{0});
    routes.rows = routes.own.data();
    return routes;
  }

  void Prepare(Modules<Module> modules, const Tensor& x, const Call& call, size_t, Routes& routes) const {
    for (const Module& module : modules) {
      if (x.last() != module.in) Refuse("x has %zu features; a has %zu", x.last(), module.in);
    }
    if (x.size != Product(routes.count, routes.length, x.last())) {
      Refuse("x has %zu numbers for a mask of %zu x %zu", x.size, routes.count, routes.length);
    }
    if (x.size == 0) return;  // no token will ask for a route
    (void)Count(routes.mask, 0);  // refuses a type that no mask has
    routes.x = x.floats("x");
    routes.tiles = (routes.length + kTile - 1) / kTile;
    for (const Module& module : modules) {
      Project(module, call, routes);
      Mix(module, call, routes);
    }
  }

  size_t Cost(const Module& module, size_t) const { return module.out * module.rank; }

  size_t Scratch(const Module&) const { return 0; }

  void Apply(const Module& module, size_t m, const Routes& routes, size_t row, size_t in, const Tile& tile,
             float*) const noexcept {
    const size_t first = static_cast<size_t>(tile.x[0] - routes.x) / in % routes.length / kTile;
    const float* u = &routes.u[m][(row * routes.tiles + first) * ProjectionSize(module.rank)];
    const float* mixed = &routes.mixed[m][row * module.rank * module.out];
    BestSimd().add(tile, module.out, {mixed, false, module.out}, module.rank, u);
  }

 private:
  template <class F>
  static void ForEach(const Call& call, size_t count, size_t cost, const F& f) {
    if (count * cost >= kWorthAThread) return call.ForEach(count, f);
    for (size_t i = 0; i < count; ++i) f(i);
  }

  static void Project(const Module& module, const Call& call, Routes& routes) {
    const size_t size = ProjectionSize(module.rank), tiles = Product(routes.count, routes.tiles);
    std::vector<float>& u = routes.u.emplace_back(Product(tiles, size));
    ForEach(call, tiles, kTile * module.in * module.rank, [&](size_t index) noexcept {
      const size_t row = index / routes.tiles, begin = index % routes.tiles * kTile;
      Tile tile;
      tile.count = std::min(kTile, routes.length - begin);
      for (size_t t = 0; t < tile.count; ++t) {
        tile.x[t] = routes.x + (row * routes.length + begin + t) * module.in;
      }
      BestSimd().project(tile, 0, module.in, module.a, module.rank, &u[index * size]);
    });
  }

  // Of every row: how much each expert counts, and the factor that this makes.
  static void Mix(const Module& module, const Call& call, Routes& routes) {
    const std::vector<float>& u = routes.u.back();
    const size_t square = Product(module.rank, module.out), rows = routes.count;
    std::vector<float>& mixed = routes.mixed.emplace_back(Product(rows, square));
    std::vector<float> means(Product(rows, module.experts)), scores(means.size());
    ForEach(call, rows, routes.length * module.experts * module.rank + module.experts * square, [&](size_t row) noexcept {
      float* const mean = &means[row * module.experts];
      float* const p = &scores[row * module.experts];
      float total = 0;
      for (size_t position = 0; position < routes.length; ++position) {
        const float count = Count(routes.mask, row * routes.length + position);
        total += count;
        if (count == 0) continue;
        const size_t tile = row * routes.tiles + position / kTile;
        Score(module, &u[tile * ProjectionSize(module.rank)], position % kTile, p);
        for (size_t e = 0; e < module.experts; ++e) mean[e] += count * p[e];
      }
      for (size_t e = 0; e < module.experts; ++e) {
        const float weight = mean[e] / std::max(total, 1.0f);
        BestSimd().axpy(square, weight, module.b.at(e * square), &mixed[row * square]);
      }
    });
  }

  static void Score(const Module& module, const float* u, size_t token, float* p) noexcept {
    for (size_t e = 0; e < module.experts; ++e) {
      p[e] = 0;
      for (size_t r = 0; r < module.rank; r += kRankBlock) {
        const size_t width = std::min(module.rank - r, kRankBlock);
        p[e] += BestSimd().dot(width, u + ProjectionIndex(token, r), module.gate.at(e * module.rank + r));
      }
    }
    Softmax(p, module.experts);
  }
};

}  // namespace

void AddPooledMixtureDelta(std::vector<Signature>& signatures) {
  AddDeltas<PooledMixtureDelta>("PooledMixtureDelta", signatures);
}

}  // namespace eptx::ops
