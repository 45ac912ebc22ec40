// TopExperts: the K experts of every token whose softmax(gate x) is largest, by number, and their shares of that sum.
#include <algorithm>
#include <numeric>

#include "ops/delta.h"
#include "ops/operators.h"

namespace eptx::ops {
namespace {

// Tokens that a thread takes at a time: whole tiles.
constexpr size_t kChunk = 64;

class TopExperts final : public Kernel {
 public:
  TopExperts(const Node& node, const Signature&)
      : top_k_(static_cast<size_t>(std::max<int64_t>(0, node.Attribute("top_k")))) {}

  void Compute(const Call& call) const override {
    const Tensor x = call.Input(0), stored = call.Input(1);
    const Weights gate = stored.weights("gate", 2);
    const size_t in = x.last(), count = stored.dim(0);
    const float* from = x.floats("x");
    if (in == 0) Refuse("x has no features");
    if (stored.dim(1) != in) Refuse("x has %zu features; the gate has %zu", in, stored.dim(1));
    if (top_k_ == 0 || top_k_ > count) Refuse("the %zu best of %zu experts", top_k_, count);
    const size_t tokens = x.size / in, chunks = (tokens + kChunk - 1) / kChunk;
    const int64_t shape[] = {static_cast<int64_t>(tokens), static_cast<int64_t>(top_k_)};
    int64_t* experts = call.Output<int64_t>(0, shape, 2);
    float* weights = call.Output<float>(1, shape, 2);
    std::vector<float> shares(Product(chunks, count, kTile));
    std::vector<int64_t> orders(Product(chunks, count));
    const auto compute = [&](size_t chunk) noexcept {
      float* const p = &shares[chunk * count * kTile];
      int64_t* const order = &orders[chunk * count];
      const size_t end = std::min(tokens, (chunk + 1) * kChunk);
      for (size_t begin = chunk * kChunk; begin < end; begin += kTile) {
        Tile tile{};
        tile.count = std::min(kTile, end - begin);
        for (size_t t = 0; t < tile.count; ++t) tile.x[t] = from + (begin + t) * in;
        BestSimd().share(tile, in, gate, count, p);
        for (size_t t = 0; t < tile.count; ++t) {
          const size_t to = (begin + t) * top_k_;
          Choose(p + t, order, count, experts + to, weights + to);
        }
      }
    };
    if (tokens * count * in >= kWorthAThread) return call.ForEach(chunks, compute);
    for (size_t chunk = 0; chunk < chunks; ++chunk) compute(chunk);
  }

 private:
  // p[e * kTile] is the share of expert e.
  void Choose(const float* p, int64_t* order, size_t count, int64_t* experts, float* weights) const noexcept {
    const auto share = [p](int64_t e) { return p[static_cast<size_t>(e) * kTile]; };
    std::iota(order, order + count, int64_t{0});
    // the first of equals, as ONNX's TopK has it; a NaN is no larger than anything
    std::partial_sort(order, order + top_k_, order + count, [&](int64_t a, int64_t b) {
      return share(a) > share(b) || (!(share(b) > share(a)) && a < b);
    });
    std::sort(order, order + top_k_);
    float sum = 0;
    for (size_t k = 0; k < top_k_; ++k) sum += share(order[k]);
    for (size_t k = 0; k < top_k_; ++k) experts[k] = order[k], weights[k] = share(order[k]) / sum;
  }

  size_t top_k_;
};

}  // namespace

void AddTopExperts(std::vector<Signature>& signatures) {
  Signature signature;
  signature.name = "TopExperts";
  signature.inputs = {kFloat, kAny};
  signature.outputs = {kInt64, kFloat};
  signature.make = [](const Node& node, const Signature& s) -> std::unique_ptr<Kernel> {
    return std::make_unique<TopExperts>(node, s);
  };
  signatures.push_back(std::move(signature));
}

}  // namespace eptx::ops
