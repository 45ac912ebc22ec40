// ChosenExpertsDelta, -Mean and -Sum: every token runs through its own experts, side by side in slots.
//
// A chunk of tokens is sorted by expert, so that tokens of one expert are computed together. All slots of a token are of
// one chunk: no other thread adds to its output. Past the last expert is none, whose slots have no update.
#include <algorithm>
#include <cstring>

#include "ops/delta.h"
#include "ops/operators.h"

namespace eptx::ops {
namespace {

constexpr size_t kChunk = 64;  // tokens

// A module's experts.
struct Experts {
  Weights a;  // [in, experts * rank]
  Weights b;  // [experts, rank, out]
  size_t count, in, rank, out;

  Experts(const Tensor& stored_a, const Tensor& stored_b) : a(stored_a.weights("a", 2)), b(stored_b.weights("b", 3)) {
    count = stored_b.dim(0);
    rank = stored_b.dim(1);
    out = stored_b.dim(2);
    in = stored_a.dim(0);
    if (stored_a.dim(1) != Product(count, rank)) Refuse("a and b do not fit each other");
  }

  // The first factor of an expert: some columns of all.
  Weights first(size_t expert) const { return a.at(expert * rank); }
  Weights second(size_t expert) const { return b.at(expert * rank * out); }
};

// The experts [tokens, slots] of a call.
struct Choice {
  const int64_t* experts;
  size_t tokens, slots;

  explicit Choice(const Tensor& stored) {
    stored.Ranked(2, "experts");
    experts = stored.integers("experts");
    tokens = stored.dim(0);
    slots = stored.dim(1);
    if (slots == 0) Refuse("a token has no expert");
    for (size_t i = 0; i < stored.size; ++i) {
      if (experts[i] < 0) Refuse("expert %lld", static_cast<long long>(experts[i]));
    }
  }
};

// Runs compute(slot_index[], count, expert, scratch) for tiles of slots of one expert, chunk after chunk.
template <class F>
void ForTiles(const Call& call, const Choice& choice, size_t cost, size_t scratch, const F& compute) {
  const size_t chunks = (choice.tokens + kChunk - 1) / kChunk, pairs = Product(kChunk, choice.slots);
  std::vector<size_t> orders(Product(chunks, pairs));
  std::vector<float> buffers(Product(chunks, scratch));
  const auto run = [&](size_t chunk) noexcept {
    const size_t first = chunk * pairs, last = std::min(choice.tokens * choice.slots, first + pairs);
    size_t* const order = &orders[first];
    const size_t count = last - first;
    for (size_t i = 0; i < count; ++i) order[i] = first + i;
    std::sort(order, order + count, [&](size_t a, size_t b) {
      return choice.experts[a] != choice.experts[b] ? choice.experts[a] < choice.experts[b] : a < b;
    });
    for (size_t begin = 0; begin < count;) {
      const int64_t expert = choice.experts[order[begin]];
      size_t end = begin + 1;
      // a token that has one expert twice is in two tiles: a tile adds to each output once
      const auto other = [&](size_t at) { return order[at] / choice.slots != order[at - 1] / choice.slots; };
      while (end < count && end - begin < kTile && choice.experts[order[end]] == expert && other(end)) ++end;
      compute(order + begin, end - begin, static_cast<size_t>(expert), &buffers[chunk * scratch]);
      begin = end;
    }
  };
  if (choice.tokens * choice.slots * cost >= kWorthAThread) return call.ForEach(chunks, run);
  for (size_t chunk = 0; chunk < chunks; ++chunk) run(chunk);
}

// The dims of a tensor with a slot axis before the last one.
size_t WithSlots(const Tensor& y, size_t slots, int64_t* dims) {
  if (y.rank == 0 || y.rank >= Tensor::kMaxRank) Refuse("y has %zu dimensions", y.rank);
  std::copy_n(y.dims.data(), y.rank - 1, dims);
  dims[y.rank - 1] = static_cast<int64_t>(slots);
  dims[y.rank] = y.dims[y.rank - 1];
  return y.rank + 1;
}

class ChosenExpertsDelta final : public Kernel {
 public:
  ChosenExpertsDelta(const Node&, const Signature&) {}

  void Compute(const Call& call) const override {
    const Tensor y = call.Input(0), x = call.Input(1);
    const Experts experts(call.Input(3), call.Input(4));
    const Choice choice(call.Input(2));
    const float *from = y.floats("y"), *input = x.floats("x");
    if (x.last() != experts.in) Refuse("x has %zu features; a has %zu", x.last(), experts.in);
    if (y.last() != experts.out) Refuse("y has %zu features; the adapter has %zu", y.last(), experts.out);
    if (x.size != Product(choice.tokens, experts.in) || y.size != Product(choice.tokens, experts.out)) {
      Refuse("x and y do not have the %zu tokens of the experts", choice.tokens);
    }
    int64_t dims[Tensor::kMaxRank];
    float* to = call.Output<float>(0, dims, WithSlots(y, choice.slots, dims));
    const size_t cost = (experts.in + experts.out) * experts.rank, out = experts.out;
    ForTiles(call, choice, cost, ProjectionSize(experts.rank),
             [&](const size_t* slots, size_t count, size_t expert, float* u) noexcept {
               Tile tile;
               tile.count = count;
               for (size_t t = 0; t < count; ++t) {
                 const size_t token = slots[t] / choice.slots;
                 tile.x[t] = input + token * experts.in;
                 tile.y[t] = to + slots[t] * out;
                 std::memcpy(tile.y[t], from + token * out, out * sizeof(float));
               }
               if (expert >= experts.count) return;
               ClearProjections(u, count, experts.rank);
               BestSimd().project(tile, 0, experts.in, experts.first(expert), experts.rank, u);
               BestSimd().add(tile, out, experts.second(expert), experts.rank, u);
             });
  }
};

class ChosenExpertsSum final : public Kernel {
 public:
  ChosenExpertsSum(const Node&, const Signature&) {}

  void Compute(const Call& call) const override {
    const Tensor y = call.Input(0), m = call.Input(1), given = call.Input(3);
    const Experts experts(call.Input(4), call.Input(5));
    const Choice choice(call.Input(2));
    const Weights weights = given.numbers("weights", 2);
    const float *from = y.floats("y"), *input = m.floats("m");
    if (given.dim(0) != choice.tokens || given.dim(1) != choice.slots) Refuse("weights and experts differ in shape");
    if (m.last() != experts.in) Refuse("m has %zu features; a has %zu", m.last(), experts.in);
    if (y.last() != experts.out) Refuse("y has %zu features; the adapter has %zu", y.last(), experts.out);
    if (m.size != Product(choice.tokens, choice.slots, experts.in) || y.size != Product(choice.tokens, experts.out)) {
      Refuse("m and y do not have the %zu tokens of the experts", choice.tokens);
    }
    float* to = call.Output<float>(0, y.dims.data(), y.rank);
    if (to != from) std::memcpy(to, from, y.size * sizeof(float));
    const size_t cost = (experts.in + experts.out) * experts.rank, rank = experts.rank;
    ForTiles(call, choice, cost, ProjectionSize(rank),
             [&](const size_t* slots, size_t count, size_t expert, float* u) noexcept {
               if (expert >= experts.count) return;
               Tile tile;
               tile.count = count;
               for (size_t t = 0; t < count; ++t) {
                 tile.x[t] = input + slots[t] * experts.in;
                 tile.y[t] = to + slots[t] / choice.slots * experts.out;
               }
               ClearProjections(u, count, rank);
               BestSimd().project(tile, 0, experts.in, experts.first(expert), rank, u);
               for (size_t t = 0; t < count; ++t) {
                 const float weight = Number(weights, slots[t]);
                 for (size_t r = 0; r < rank; ++r) u[ProjectionIndex(t, r)] *= weight;
               }
               BestSimd().add(tile, experts.out, experts.second(expert), rank, u);
             });
  }
};

class ChosenExpertsMean final : public Kernel {
 public:
  ChosenExpertsMean(const Node&, const Signature&) {}

  void Compute(const Call& call) const override {
    const Tensor m = call.Input(0), given = call.Input(1);
    const Weights weights = given.numbers("weights", 2);
    const float* const from = m.floats("m");
    const size_t width = m.last(), tokens = given.dim(0), slots = given.dim(1);
    if (slots == 0) Refuse("a token has no expert");
    if (width == 0) Refuse("m has no features");
    if (m.rank < 2 || m.dim(m.rank - 2) != slots) Refuse("m does not have the %zu slots of the weights", slots);
    if (m.size != Product(tokens, slots, width)) Refuse("m does not have the %zu tokens of the weights", tokens);
    int64_t dims[Tensor::kMaxRank];
    std::copy_n(m.dims.data(), m.rank - 2, dims);
    dims[m.rank - 2] = m.dims[m.rank - 1];
    float* const to = call.Output<float>(0, dims, m.rank - 1);
    const size_t chunks = (tokens + kChunk - 1) / kChunk;
    const auto compute = [&](size_t chunk) noexcept {
      for (size_t t = chunk * kChunk; t < std::min(tokens, (chunk + 1) * kChunk); ++t) {
        std::fill_n(to + t * width, width, 0.0f);
        for (size_t k = 0; k < slots; ++k) {
          const size_t slot = t * slots + k;
          BestSimd().axpy(width, Number(weights, slot), {from + slot * width, false, width}, to + t * width);
        }
      }
    };
    if (m.size >= kWorthAThread) return call.ForEach(chunks, compute);
    for (size_t chunk = 0; chunk < chunks; ++chunk) compute(chunk);
  }
};

template <class T>
void AddOne(const char* name, std::vector<ONNXTensorElementDataType> inputs, size_t in_place,
            std::vector<Signature>& signatures) {
  Signature signature;
  signature.name = name;
  signature.inputs = std::move(inputs);
  signature.outputs = {kFloat};
  signature.in_place = in_place;
  signature.make = [](const Node& node, const Signature& s) -> std::unique_ptr<Kernel> {
    return std::make_unique<T>(node, s);
  };
  signatures.push_back(std::move(signature));
}

}  // namespace

void AddChosenExperts(std::vector<Signature>& signatures) {
  AddOne<ChosenExpertsDelta>("ChosenExpertsDelta", {kFloat, kFloat, kInt64, kAny, kAny}, 0, signatures);
  AddOne<ChosenExpertsMean>("ChosenExpertsMean", {kFloat, kAny}, 0, signatures);
  AddOne<ChosenExpertsSum>("ChosenExpertsSum", {kFloat, kFloat, kInt64, kAny, kAny, kAny}, 1, signatures);
}

}  // namespace eptx::ops
