// Compiled once for each instruction set by Highway's foreach_target.h; the rest of the library is compiled once.
#include "ops/simd.h"

// What is not worth a copy of its own: between AVX2 and the portable path, and above AVX-512 as of Skylake. On ARM64
// one copy serves all, NEON: vectors of SVE have no size that an array of accumulators could have.
#define HWY_DISABLED_TARGETS                                                                \
  (HWY_AVX3_SPR | HWY_AVX3_ZEN4 | HWY_AVX3_DL | HWY_SSE4 | HWY_SSSE3 | HWY_SVE | HWY_SVE2 | \
   HWY_SVE_256 | HWY_SVE2_128)
#if defined(__aarch64__)
#define HWY_COMPILE_ONLY_STATIC
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/simd.cc"
#include <hwy/foreach_target.h>
// The line above must come first.
#include <hwy/cache_control.h>
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace eptx::ops {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Registers for a second column of accumulators: AVX-512 and NEON have 32.
constexpr size_t kColumns = (HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM_A64) ? 2 : 1;

template <class D>
using V = hn::Vec<D>;

// Weights of one type, read as float32.
template <bool half>
struct Reader;

template <>
struct Reader<false> {
  using Number = float;
  template <class D>
  static HWY_INLINE V<D> Load(D d, const float* at) {
    return hn::LoadU(d, at);
  }
  template <class D>
  static HWY_INLINE V<D> LoadN(D d, const float* at, size_t n) {
    return hn::LoadN(d, at, n);
  }
};

template <>
struct Reader<true> {
  using Number = hwy::float16_t;
  template <class D>
  static HWY_INLINE V<D> Load(D d, const hwy::float16_t* at) {
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::float16_t, D>(), at));
  }
  template <class D>
  static HWY_INLINE V<D> LoadN(D d, const hwy::float16_t* at, size_t n) {
    const hn::Rebind<uint16_t, D> bits;
    const auto raw = hn::LoadN(bits, reinterpret_cast<const uint16_t*>(at), n);
    return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), raw));
  }
};

// Asks for what will be read soon. Any address may be asked for.
HWY_INLINE void Fetch(const float* at, size_t ahead) {
  hwy::Prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(at) + ahead * sizeof(float)));
}

// All lanes, or the first n of them.
struct Full {
  template <class R, class D>
  HWY_INLINE V<D> Read(D d, const typename R::Number* at) const {
    return R::Load(d, at);
  }
  template <class D>
  HWY_INLINE V<D> Get(D d, const float* at) const {
    return hn::LoadU(d, at);
  }
  template <class D>
  HWY_INLINE void Put(D d, V<D> v, float* at) const {
    hn::StoreU(v, d, at);
  }
};

struct Part {
  size_t n;
  template <class R, class D>
  HWY_INLINE V<D> Read(D d, const typename R::Number* at) const {
    return R::LoadN(d, at, n);
  }
  template <class D>
  HWY_INLINE V<D> Get(D d, const float* at) const {
    return hn::LoadN(d, at, n);
  }
  template <class D>
  HWY_INLINE void Put(D d, V<D> v, float* at) const {
    hn::StoreN(v, d, at, n);
  }
};

// u[t, 0 .. C lanes) += x[t][begin .. end) a. T tokens and C vectors of the rank stay in registers.
template <size_t T, size_t C, class R, class D, class Lanes>
HWY_INLINE void ProjectBlock(D d, Lanes lanes, const float* const* x, size_t begin, size_t end,
                             const typename R::Number* HWY_RESTRICT a, size_t stride, float* HWY_RESTRICT u) {
  const size_t width = hn::Lanes(d);
  V<D> sum[T][C];
  for (size_t t = 0; t < T; ++t) {
    for (size_t c = 0; c < C; ++c) sum[t][c] = lanes.Get(d, u + t * kRankBlock + c * width);
  }
  const float* from[T];
  for (size_t t = 0; t < T; ++t) from[t] = x[t];
  for (size_t i = begin; i < end; ++i) {
    V<D> row[C];
    for (size_t c = 0; c < C; ++c) row[c] = lanes.template Read<R>(d, a + i * stride + c * width);
    for (size_t t = 0; t < T; ++t) {
      const V<D> value = hn::Set(d, from[t][i]);
      for (size_t c = 0; c < C; ++c) sum[t][c] = hn::MulAdd(value, row[c], sum[t][c]);
    }
  }
  for (size_t t = 0; t < T; ++t) {
    for (size_t c = 0; c < C; ++c) lanes.Put(d, sum[t][c], u + t * kRankBlock + c * width);
  }
}

// y[t][0 .. C lanes) += u[t] b.
template <size_t T, size_t C, class R, class D, class Lanes>
HWY_INLINE void AddBlock(D d, Lanes lanes, float* const* y, size_t next_y, size_t at,
                         const typename R::Number* HWY_RESTRICT b, size_t stride, const float* HWY_RESTRICT u,
                         size_t rank) {
  const size_t width = hn::Lanes(d);
  V<D> sum[T][C];
  for (size_t t = 0; t < T; ++t) {
    for (size_t c = 0; c < C; ++c) {
      sum[t][c] = lanes.Get(d, y[t] + at + c * width);
      Fetch(y[t] + at + c * width, next_y);
    }
  }
  for (size_t block = 0; block < rank; block += kRankBlock, u += kTile * kRankBlock) {
    const size_t ranks = HWY_MIN(rank - block, kRankBlock);
    for (size_t r = 0; r < ranks; ++r, b += stride) {
      V<D> row[C];
      for (size_t c = 0; c < C; ++c) row[c] = lanes.template Read<R>(d, b + at + c * width);
      for (size_t t = 0; t < T; ++t) {
        const V<D> value = hn::Set(d, u[t * kRankBlock + r]);
        for (size_t c = 0; c < C; ++c) sum[t][c] = hn::MulAdd(value, row[c], sum[t][c]);
      }
    }
  }
  for (size_t t = 0; t < T; ++t) {
    for (size_t c = 0; c < C; ++c) lanes.Put(d, sum[t][c], y[t] + at + c * width);
  }
}

// (v lanes + l) / size for every lane l of the size vectors v that one vector of groups expands to.
constexpr size_t kMaxTabled = 16;
constexpr size_t kMaxLanes = 16;

template <size_t L>
struct Indices {
  int32_t table[kMaxTabled + 1][kMaxTabled][L];
  constexpr Indices() : table() {
    for (size_t size = 1; size <= kMaxTabled; ++size) {
      for (size_t v = 0; v < size; ++v) {
        for (size_t l = 0; l < L; ++l) table[size][v][l] = static_cast<int32_t>((v * L + l) / size);
      }
    }
  }
};

template <size_t L>
struct Tables {
  static constexpr Indices<L> indices{};
};
template <size_t L>
constexpr Indices<L> Tables<L>::indices;

// Spreads T vectors of group values over their outputs, from output `first` on: y += kernel * value[o / size].
template <size_t T, class K, class D, class Lanes>
HWY_INLINE void Spread(D d, Lanes lanes, float* const* y, size_t next_y, size_t first, const int32_t* indices,
                       const V<D>* values, const WeightedKernel* kernels, size_t kernel_count) {
  const auto index = hn::SetTableIndices(d, indices);
  V<D> kernel = hn::Zero(d);
  for (size_t k = 0; k < kernel_count; ++k) {
    const auto* from = static_cast<const typename K::Number*>(kernels[k].kernel.data);
    kernel = hn::MulAdd(hn::Set(d, kernels[k].weight), lanes.template Read<K>(d, from + first), kernel);
  }
  for (size_t t = 0; t < T; ++t) {
    float* to = y[t] + first;
    Fetch(to, next_y);
    lanes.Put(d, hn::MulAdd(kernel, hn::TableLookupLanes(values[t], index), lanes.Get(d, to)), to);
  }
}

// The outputs of the groups first .. first + lanes of one vector. K reads the kernels, of a type of their own.
template <size_t T, class R, class K, class D, class Lanes>
HWY_INLINE void ExpandBlock(D d, Lanes lanes, float* const* y, size_t next_y, size_t first, size_t groups, size_t size,
                            const typename R::Number* HWY_RESTRICT b, size_t stride, const float* HWY_RESTRICT u,
                            size_t rank, const WeightedKernel* kernels, size_t kernel_count) {
  const size_t width = hn::Lanes(d);
  V<D> value[T];
  for (size_t t = 0; t < T; ++t) value[t] = hn::Zero(d);
  for (size_t block = 0; block < rank; block += kRankBlock, u += kTile * kRankBlock) {
    const size_t ranks = HWY_MIN(rank - block, kRankBlock);
    for (size_t r = 0; r < ranks; ++r, b += stride) {
      const V<D> row = lanes.template Read<R>(d, b + first);
      for (size_t t = 0; t < T; ++t) value[t] = hn::MulAdd(hn::Set(d, u[t * kRankBlock + r]), row, value[t]);
    }
  }
  const size_t end = groups * size;
  for (size_t v = 0; v < size; ++v) {
    const size_t output = first * size + v * width;
    if (output >= end) break;
    HWY_ALIGN int32_t large[kMaxLanes];
    const int32_t* indices = large;
    if (size <= kMaxTabled) {
      indices = Tables<hn::MaxLanes(D())>::indices.table[size][v];
    } else {
      for (size_t l = 0; l < width; ++l) large[l] = static_cast<int32_t>((v * width + l) / size);
    }
    if (output + width <= end) {
      Spread<T, K>(d, Full(), y, next_y, output, indices, value, kernels, kernel_count);
    } else {
      Spread<T, K>(d, Part{end - output}, y, next_y, output, indices, value, kernels, kernel_count);
    }
  }
}

template <bool half>
const typename Reader<half>::Number* Data(Weights weights) {
  return static_cast<const typename Reader<half>::Number*>(weights.data);
}

template <size_t T, bool half, class D>
void ProjectTokens(D d, const float* const* x, size_t begin, size_t end, Weights a, size_t rank, float* u) {
  using R = Reader<half>;
  const size_t width = hn::Lanes(d);
  size_t r = 0;
  for (; r + kColumns * width <= rank; r += kColumns * width) {
    ProjectBlock<T, kColumns, R>(d, Full(), x, begin, end, Data<half>(a) + r, a.stride, u + ProjectionIndex(0, r));
  }
  for (; r + width <= rank; r += width) {
    ProjectBlock<T, 1, R>(d, Full(), x, begin, end, Data<half>(a) + r, a.stride, u + ProjectionIndex(0, r));
  }
  if (r < rank) {
    ProjectBlock<T, 1, R>(d, Part{rank - r}, x, begin, end, Data<half>(a) + r, a.stride, u + ProjectionIndex(0, r));
  }
}

template <size_t T, bool half>
void AddTokens(float* const* y, size_t next_y, size_t out, Weights b, size_t rank, const float* u) {
  using R = Reader<half>;
  const hn::CappedTag<float, kMaxLanes> d;
  const size_t width = hn::Lanes(d);
  size_t o = 0;
  for (; o + kColumns * width <= out; o += kColumns * width) {
    AddBlock<T, kColumns, R>(d, Full(), y, next_y, o, Data<half>(b), b.stride, u, rank);
  }
  for (; o + width <= out; o += width) AddBlock<T, 1, R>(d, Full(), y, next_y, o, Data<half>(b), b.stride, u, rank);
  if (o < out) AddBlock<T, 1, R>(d, Part{out - o}, y, next_y, o, Data<half>(b), b.stride, u, rank);
}

template <size_t T, bool half, bool half_kernels>
void ExpandTokens(float* const* y, size_t next_y, size_t groups, size_t size, Weights b, size_t rank, const float* u,
                  const WeightedKernel* kernels, size_t count) {
  using R = Reader<half>;
  using K = Reader<half_kernels>;
  const hn::CappedTag<float, kMaxLanes> d;
  const size_t width = hn::Lanes(d);
  size_t g = 0;
  for (; g + width <= groups; g += width) {
    ExpandBlock<T, R, K>(d, Full(), y, next_y, g, groups, size, Data<half>(b), b.stride, u, rank, kernels, count);
  }
  if (g < groups) {
    const Part rest{groups - g};
    ExpandBlock<T, R, K>(d, rest, y, next_y, g, groups, size, Data<half>(b), b.stride, u, rank, kernels, count);
  }
}

// Calls f<T>(first token) so that the token counts 8, 4, 2, 1 make up the tile.
template <class F>
HWY_INLINE void InBlocks(size_t count, F f) {
  size_t t = 0;
  if (count == kTile) return f(std::integral_constant<size_t, kTile>(), t);
  if (count & 4) f(std::integral_constant<size_t, 4>(), t), t += 4;
  if (count & 2) f(std::integral_constant<size_t, 2>(), t), t += 2;
  if (count & 1) f(std::integral_constant<size_t, 1>(), t);
}

template <bool half>
void ProjectTile(const Tile& tile, size_t begin, size_t end, Weights a, size_t rank, float* u) {
  InBlocks(tile.count, [&](auto tokens, size_t t) {
    constexpr size_t T = decltype(tokens)::value;
    // A rank of at most 8 fills half a vector of AVX-512; on many processors two such are as fast as a whole one.
    if (rank <= 8) {
      ProjectTokens<T, half>(hn::CappedTag<float, 8>(), tile.x + t, begin, end, a, rank, u + t * kRankBlock);
    } else {
      ProjectTokens<T, half>(hn::CappedTag<float, kMaxLanes>(), tile.x + t, begin, end, a, rank, u + t * kRankBlock);
    }
  });
}

void Project(const Tile& tile, size_t begin, size_t end, Weights a, size_t rank, float* u) {
  (a.half ? ProjectTile<true> : ProjectTile<false>)(tile, begin, end, a, rank, u);
}

template <bool half>
void AddTile(const Tile& tile, size_t out, Weights b, size_t rank, const float* u) {
  InBlocks(tile.count, [&](auto tokens, size_t t) {
    AddTokens<decltype(tokens)::value, half>(tile.y + t, tile.next_y, out, b, rank, u + t * kRankBlock);
  });
}

void Add(const Tile& tile, size_t out, Weights b, size_t rank, const float* u) {
  (b.half ? AddTile<true> : AddTile<false>)(tile, out, b, rank, u);
}

template <bool half, bool half_kernels>
void ExpandTile(const Tile& tile, size_t groups, size_t size, Weights b, size_t rank, const float* u,
                const WeightedKernel* kernels, size_t count) {
  InBlocks(tile.count, [&](auto tokens, size_t t) {
    ExpandTokens<decltype(tokens)::value, half, half_kernels>(tile.y + t, tile.next_y, groups, size, b, rank,
                                                              u + t * kRankBlock, kernels, count);
  });
}

void Expand(const Tile& tile, size_t groups, size_t size, Weights b, size_t rank, const float* u,
            const WeightedKernel* kernels, size_t count) {
  const bool half_kernels = count != 0 && kernels[0].kernel.half;  // all of one tensor
  const auto tiles = b.half ? (half_kernels ? ExpandTile<true, true> : ExpandTile<true, false>)
                            : (half_kernels ? ExpandTile<false, true> : ExpandTile<false, false>);
  tiles(tile, groups, size, b, rank, u, kernels, count);
}

template <size_t T, bool half>
void BiasTokens(float* const* y, size_t next_y, size_t out, Weights bias) {
  using R = Reader<half>;
  const hn::CappedTag<float, kMaxLanes> d;
  const auto* from = Data<half>(bias);
  const auto add = [&](auto lanes, size_t o) HWY_ATTR {
    const auto value = lanes.template Read<R>(d, from + o);
    for (size_t t = 0; t < T; ++t) {
      Fetch(y[t] + o, next_y);
      lanes.Put(d, hn::Add(value, lanes.Get(d, y[t] + o)), y[t] + o);
    }
  };
  size_t o = 0;
  for (; o + hn::Lanes(d) <= out; o += hn::Lanes(d)) add(Full(), o);
  if (o < out) add(Part{out - o}, o);
}

template <bool half>
void BiasTile(const Tile& tile, size_t out, Weights bias) {
  InBlocks(tile.count, [&](auto tokens, size_t t) {
    BiasTokens<decltype(tokens)::value, half>(tile.y + t, tile.next_y, out, bias);
  });
}

void Bias(const Tile& tile, size_t out, Weights bias) {
  (bias.half ? BiasTile<true> : BiasTile<false>)(tile, out, bias);
}

template <bool half>
void AxpyOf(size_t n, float a, Weights x, float* y) {
  const hn::CappedTag<float, kMaxLanes> d;
  const auto* from = Data<half>(x);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::StoreU(hn::MulAdd(hn::Set(d, a), Reader<half>::Load(d, from + i), hn::LoadU(d, y + i)), d, y + i);
  }
  if (i == n) return;
  const auto rest = hn::LoadN(d, y + i, n - i);
  hn::StoreN(hn::MulAdd(hn::Set(d, a), Reader<half>::LoadN(d, from + i, n - i), rest), d, y + i, n - i);
}

void Axpy(size_t n, float a, Weights x, float* y) { (x.half ? AxpyOf<true> : AxpyOf<false>)(n, a, x, y); }

template <bool half>
float DotOf(size_t n, const float* x, Weights w) {
  const hn::CappedTag<float, kMaxLanes> d;
  const auto* from = Data<half>(w);
  auto sum = hn::Zero(d);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    sum = hn::MulAdd(hn::LoadU(d, x + i), Reader<half>::Load(d, from + i), sum);
  }
  if (i < n) sum = hn::MulAdd(hn::LoadN(d, x + i, n - i), Reader<half>::LoadN(d, from + i, n - i), sum);
  return hn::ReduceSum(d, sum);
}

float Dot(size_t n, const float* x, Weights w) { return (w.half ? DotOf<true> : DotOf<false>)(n, x, w); }

// The scores of the experts first .. first + E. T tokens and E experts stay in registers, and no sum waits for another.
template <size_t T, size_t E, bool half>
HWY_INLINE void ScoreBlock(const float* const* x, size_t in, Weights gate, size_t first, float* HWY_RESTRICT scores) {
  using R = Reader<half>;
  const hn::CappedTag<float, kMaxLanes> d;
  const typename R::Number* row[E];
  for (size_t e = 0; e < E; ++e) row[e] = Data<half>(gate.row(first + e));
  V<decltype(d)> sum[T][E];
  for (size_t t = 0; t < T; ++t) {
    for (size_t e = 0; e < E; ++e) sum[t][e] = hn::Zero(d);
  }
  const auto add = [&](auto lanes, size_t i) HWY_ATTR {
    V<decltype(d)> weight[E];
    for (size_t e = 0; e < E; ++e) weight[e] = lanes.template Read<R>(d, row[e] + i);
    for (size_t t = 0; t < T; ++t) {
      const auto value = lanes.Get(d, x[t] + i);
      for (size_t e = 0; e < E; ++e) sum[t][e] = hn::MulAdd(value, weight[e], sum[t][e]);
    }
  };
  size_t i = 0;
  for (; i + hn::Lanes(d) <= in; i += hn::Lanes(d)) add(Full(), i);
  if (i < in) add(Part{in - i}, i);
  for (size_t t = 0; t < T; ++t) {
    for (size_t e = 0; e < E; ++e) scores[(first + e) * kTile + t] = hn::ReduceSum(d, sum[t][e]);
  }
}

template <size_t T, bool half>
HWY_INLINE void ScoreTokens(const float* const* x, size_t in, Weights gate, size_t experts, float* scores) {
  size_t e = 0;
  for (; e + 2 <= experts; e += 2) ScoreBlock<T, 2, half>(x, in, gate, e, scores);
  if (e < experts) ScoreBlock<T, 1, half>(x, in, gate, e, scores);
}

template <bool half>
void ScoreTile(const Tile& tile, size_t in, Weights gate, size_t experts, float* scores) {
  size_t t = 0;
  for (; t + 4 <= tile.count; t += 4) ScoreTokens<4, half>(tile.x + t, in, gate, experts, scores + t);
  for (; t < tile.count; ++t) ScoreTokens<1, half>(tile.x + t, in, gate, experts, scores + t);
}

// Makes shares of a tile's scores: of each token they sum to 1.
void Softmax(size_t experts, float* p) {
  const hn::CappedTag<float, kTile> d;
  for (size_t t = 0; t < kTile; t += hn::Lanes(d)) {
    auto top = hn::LoadU(d, p + t);
    for (size_t e = 1; e < experts; ++e) top = hn::Max(top, hn::LoadU(d, p + e * kTile + t));
    auto sum = hn::Zero(d);
    for (size_t e = 0; e < experts; ++e) {
      const auto own = hn::Exp(d, hn::Sub(hn::LoadU(d, p + e * kTile + t), top));
      hn::StoreU(own, d, p + e * kTile + t);
      sum = hn::Add(sum, own);
    }
    for (size_t e = 0; e < experts; ++e) {
      hn::StoreU(hn::Div(hn::LoadU(d, p + e * kTile + t), sum), d, p + e * kTile + t);
    }
  }
}

void Share(const Tile& tile, size_t in, Weights gate, size_t experts, float* shares) {
  std::fill_n(shares, experts * kTile, 0.0f);  // of the places that have no token, too
  (gate.half ? ScoreTile<true> : ScoreTile<false>)(tile, in, gate, experts, shares);
  Softmax(experts, shares);
}

}  // namespace

const Simd& Table() {
  static const Simd table = {hwy::TargetName(HWY_TARGET), Project, Bias, Add, Expand, Axpy, Dot, Share};
  return table;
}

}  // namespace HWY_NAMESPACE
}  // namespace eptx::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace eptx::ops {
namespace {

// Highway's own dispatch lives in its compiled library, which not every system ships for linking; its headers do.
[[maybe_unused]] bool HasAvx2() noexcept {
#if HWY_ARCH_X86
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#else
  return false;
#endif
}

[[maybe_unused]] bool HasAvx3() noexcept {
#if HWY_ARCH_X86
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd");
#else
  return false;
#endif
}

}  // namespace

size_t AllSimd(const Simd** tables, size_t capacity) noexcept {
  size_t count = 0;
  [[maybe_unused]] const auto offer = [&](bool has, const Simd& table) {
    if (has && count < capacity) tables[count++] = &table;
  };
#if HWY_TARGETS & HWY_AVX3
  offer(HasAvx3(), N_AVX3::Table());
#endif
#if HWY_TARGETS & HWY_AVX2
  offer(HasAvx2(), N_AVX2::Table());
#endif
  offer(true, HWY_STATIC_DISPATCH(Table)());
  return count;
}

const Simd& BestSimd() noexcept {
  static const Simd* const best = [] {
    const Simd* table = nullptr;
    AllSimd(&table, 1);
    return table;
  }();
  return *best;
}

float Number(Weights weights, size_t index) noexcept {
  if (!weights.half) return static_cast<const float*>(weights.data)[index];
  return hwy::F32FromF16(static_cast<const hwy::float16_t*>(weights.data)[index]);
}

}  // namespace eptx::ops

#endif  // HWY_ONCE
