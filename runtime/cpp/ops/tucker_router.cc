// TuckerRouter: h = mean of x over the positions that the mask counts; the group of the largest sigmoid(centroid h).
#include <algorithm>
#include <cmath>

#include "ops/mask.h"
#include "ops/operators.h"

namespace eptx::ops {
namespace {

class TuckerRouter final : public Kernel {
 public:
  TuckerRouter(const Node& node, const Signature&) : groups_(static_cast<size_t>(node.Attribute("groups"))) {}

  void Compute(const Call& call) const override {
    const Tensor x = call.Input(0), mask = call.Input(1), centroids = call.Input(2);
    const Weights rows = centroids.weights("centroids", 2);
    mask.Ranked(2, "mask");
    const size_t in = x.last(), n = mask.dim(0), length = mask.dim(1), all = centroids.dim(0);
    if (x.size == 0 || x.size != Product(n, length, in)) {
      Refuse("x has %zu numbers for a mask of %zu x %zu", x.size, n, length);
    }
    if (centroids.dim(1) != in) Refuse("x has %zu features; the centroids have %zu", in, centroids.dim(1));
    if (groups_ == 0 || all == 0 || all % groups_ != 0) Refuse("%zu centroids for %zu groups", all, groups_);
    const size_t experts = all / groups_;
    const int64_t shape[] = {static_cast<int64_t>(n), static_cast<int64_t>(experts)};
    int64_t* group = call.Output<int64_t>(0, shape, 1);
    float* weights = call.Output<float>(1, shape, 2);
    std::vector<float> mean(in), score(all);
    for (size_t row = 0; row < n; ++row) {
      Mean(x.floats("x") + row * length * in, mask, row * length, length, mean);
      for (size_t c = 0; c < all; ++c) score[c] = BestSimd().dot(in, mean.data(), rows.row(c));
      group[row] = static_cast<int64_t>(Choose(score, experts));
      std::copy_n(&score[static_cast<size_t>(group[row]) * experts], experts, weights + row * experts);
    }
  }

 private:
  static void Mean(const float* x, const Tensor& mask, size_t first, size_t length, std::vector<float>& mean) {
    const size_t in = mean.size();
    std::fill(mean.begin(), mean.end(), 0.0f);
    float total = 0;
    for (size_t position = 0; position < length; ++position) {
      const float count = Count(mask, first + position);
      total += count;
      if (count != 0) BestSimd().axpy(in, count, {x + position * in, false, in}, mean.data());
    }
    for (float& value : mean) value /= std::max(total, 1.0f);
  }

  // Turns scores into weights; each group's scores have unit length before the sigmoid. Returns the group of the
  // largest weight, the first among equals.
  static size_t Choose(std::vector<float>& score, size_t experts) {
    size_t best = 0;
    float largest = -1;
    for (size_t first = 0; first < score.size(); first += experts) {
      float square = 0;
      for (size_t t = 0; t < experts; ++t) square += score[first + t] * score[first + t];
      const float length = std::max(std::sqrt(square), 1e-12f);
      float top = -1;
      for (size_t t = 0; t < experts; ++t) {
        score[first + t] = 1 / (1 + std::exp(-score[first + t] / length));
        top = std::max(top, score[first + t]);
      }
      if (top > largest) largest = top, best = first / experts;
    }
    return best;
  }

  size_t groups_;
};

}  // namespace

void AddTuckerRouter(std::vector<Signature>& signatures) {
  Signature signature;
  signature.name = "TuckerRouter";
  signature.inputs = {kFloat, kAny, kAny};
  signature.outputs = {kInt64, kFloat};
  signature.make = [](const Node& node, const Signature& s) -> std::unique_ptr<Kernel> {
    return std::make_unique<TuckerRouter>(node, s);
  };
  signatures.push_back(std::move(signature));
}

}  // namespace eptx::ops
