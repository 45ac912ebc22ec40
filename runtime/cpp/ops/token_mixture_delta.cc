// TokenMixtureDelta: y' = y + the sum over e of p_e (x a_e) b_e with p = softmax(gate x), for every token by itself.
#include <algorithm>

#include "ops/delta.h"
#include "ops/operators.h"

namespace eptx::ops {
namespace {

class TokenMixtureDelta {
 public:
  static constexpr size_t kShared = 0;
  static constexpr size_t kOwn = 3;  // gate, a, b
  static constexpr bool kSees = false;

  struct Module {
    Weights gate;  // [experts, in]
    Weights a;     // [in, factors * rank]
    Weights b;     // [experts, rank, out]
    size_t experts, in, rank, out;
    size_t factors;  // the experts, or 1: all have the same a
  };

  struct Routes {
    const int64_t* rows;
    size_t count;
  };

  explicit TokenMixtureDelta(const Node&) {}

  Module ReadModule(const Tensor* own) const {
    Module module{};
    module.gate = own[0].weights("gate", 2);
    module.a = own[1].weights("a", 2);
    module.b = own[2].weights("b", 3);
    module.experts = own[2].dim(0);
    module.rank = own[2].dim(1);
    module.out = own[2].dim(2);
    module.in = own[1].dim(0);
    module.factors = own[1].dim(1) / module.rank;
    const bool fits = module.factors == 1 || module.factors == module.experts;
    if (!fits || own[1].dim(1) != module.factors * module.rank) Refuse("a and b do not fit each other");
    if (own[0].dim(0) != module.experts || own[0].dim(1) != module.in) Refuse("gate does not fit a and b");
    return module;
  }

  // Tokens choose for themselves, so all of them are one row.
  Routes ReadRoutes(const Tensor*) const {
    static constexpr int64_t kOne = 0;
    return {&kOne, 1};
  }

  void Prepare(Modules<Module> modules, const Tensor& x, const Call&, size_t, Routes&) const {
    for (const Module& module : modules) {
      if (x.last() != module.in) Refuse("x has %zu features; a has %zu", x.last(), module.in);
    }
  }

  size_t Cost(const Module& module, size_t in) const {
    return in * (module.factors * module.rank + module.experts) + module.experts * module.rank * module.out;
  }

  size_t Scratch(const Module& module) const {
    return Sum(Sum(ProjectionSize(Product(module.factors, module.rank)),
                   ProjectionSize(Product(module.experts, module.rank))),
               Product(kTile, module.experts));
  }

  void Apply(const Module& module, size_t, const Routes&, size_t, size_t in, const Tile& tile,
             float* scratch) const noexcept {
    const Simd& simd = BestSimd();
    const size_t rank = module.rank, narrow = module.factors * rank, wide = module.experts * rank;
    float* const u = scratch;
    float* const mixed = u + ProjectionSize(narrow);
    float* const shares = mixed + ProjectionSize(wide);
    ClearProjections(u, tile.count, narrow);
    simd.project(tile, 0, in, module.a, narrow, u);
    simd.share(tile, in, module.gate, module.experts, shares);
    for (size_t t = 0; t < tile.count; ++t) {
      for (size_t e = 0, to = 0; e < module.experts; ++e) {
        const float share = shares[e * kTile + t];
        const size_t from = module.factors == 1 ? 0 : to;
        for (size_t r = 0; r < rank; ++r, ++to) mixed[ProjectionIndex(t, to)] = share * u[ProjectionIndex(t, from + r)];
      }
    }
    simd.add(tile, module.out, module.b, wide, mixed);
  }
};

}  // namespace

void AddTokenMixtureDelta(std::vector<Signature>& signatures) {
  AddDeltas<TokenMixtureDelta>("TokenMixtureDelta", signatures);
}

}  // namespace eptx::ops
