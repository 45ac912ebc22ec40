// Compares every function of every instruction set with sums in double precision, over random shapes. Numbers that a
// function must not read are NaN. A buffer ends with its last number, so that a sanitizer sees a read or a write past
// it.
//
//     eptx_simd_test [ROUNDS]     prints the error of each instruction set; fails where it is too large
#include "ops/simd.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

namespace {

using eptx::ops::kTile;
using eptx::ops::ProjectionIndex;
using eptx::ops::ProjectionSize;
using eptx::ops::Simd;
using eptx::ops::Tile;
using eptx::ops::WeightedKernel;
using eptx::ops::Weights;

constexpr float kNothing = std::numeric_limits<float>::quiet_NaN();
// Relative to the sum of the magnitudes; sums have about a hundred terms.
constexpr double kTolerance = 1e-5;

std::mt19937_64 engine(20240607);

size_t Below(size_t end) { return std::uniform_int_distribution<size_t>(0, end - 1)(engine); }
size_t Within(size_t low, size_t high) { return low + Below(high - low + 1); }
bool Coin() { return Below(2) == 1; }
float Random() { return std::normal_distribution<float>()(engine); }

// A finite float16 number from its bits, also a subnormal one.
float FromHalf(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double size = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return static_cast<float>(bits & 0x8000 ? -size : size);
}

// A random float16 with a magnitude below 2; also zeros and subnormals.
uint16_t RandomHalf() {
  const auto sign = static_cast<uint16_t>(Coin() ? 0x8000 : 0);
  const size_t exponent = Below(8) == 0 ? 0 : Within(8, 15);
  return static_cast<uint16_t>(sign | exponent << 10 | Below(1024));
}

// Memory for exactly `count` numbers, not aligned for vectors: one number past a boundary.
class Block {
 public:
  Block(size_t count, size_t size) : bytes_(new char[count * size + size]), at_(bytes_.get() + size) {}
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(at_);
  }

 private:
  std::unique_ptr<char[]> bytes_;
  char* at_;
};

// Random weights, as a kernel reads them and as numbers. NaN is between the rows; memory ends with the last row.
class Matrix {
 public:
  Matrix(size_t rows, size_t columns, bool half)
      : stride_(columns + Below(4)),
        half_(half),
        block_(rows == 0 ? 0 : (rows - 1) * stride_ + columns, half ? 2 : 4),
        numbers_(rows * stride_, kNothing) {
    for (size_t i = 0; rows != 0 && i < (rows - 1) * stride_ + columns; ++i) {
      const bool inside = i % stride_ < columns;
      if (half) {
        block_.as<uint16_t>()[i] = inside ? RandomHalf() : 0x7e00;
        if (inside) numbers_[i] = FromHalf(block_.as<uint16_t>()[i]);
      } else {
        block_.as<float>()[i] = inside ? Random() : kNothing;
        numbers_[i] = block_.as<float>()[i];
      }
    }
  }
  Weights weights() { return {block_.as<void>(), half_, stride_}; }
  double at(size_t row, size_t column) const { return static_cast<double>(numbers_[row * stride_ + column]); }

 private:
  size_t stride_;
  bool half_;
  Block block_;
  std::vector<float> numbers_;
};

// Rows of floats; each row has its own memory.
class Rows {
 public:
  Rows(size_t rows, size_t columns) : columns_(columns) {
    for (size_t r = 0; r < rows; ++r) {
      blocks_.emplace_back(columns, sizeof(float));
      for (size_t c = 0; c < columns; ++c) blocks_[r].as<float>()[c] = Random();
      before_.emplace_back(blocks_[r].as<float>(), blocks_[r].as<float>() + columns);
    }
  }
  float* row(size_t r) { return blocks_[r].as<float>(); }
  double before(size_t r, size_t c) const { return static_cast<double>(before_[r][c]); }
  size_t columns() const { return columns_; }

 private:
  size_t columns_;
  std::vector<Block> blocks_;
  std::vector<std::vector<float>> before_;
};

// A sum, and the sum of its terms' magnitudes.
struct Sum {
  double value = 0, size = 0;
  explicit Sum(double start = 0) { Add(start); }
  void Add(double term) { value += term, size += std::fabs(term); }
};

// The result for one function of one instruction set.
struct Result {
  const char* set;
  const char* function;
  double worst = 0;
  size_t numbers = 0;
  bool failed = false;

  void Check(float got, const Sum& want) {
    ++numbers;
    const double off = std::fabs(static_cast<double>(got) - want.value);
    const double relative = want.size == 0 ? (off == 0 ? 0 : 1) : off / want.size;
    if (!(relative <= kTolerance)) failed = true;  // NaN too
    if (relative > worst) worst = relative;
  }
  // Checks that a number is unchanged, to the bit.
  void Same(float got, float before) {
    ++numbers;
    if (std::memcmp(&got, &before, sizeof(float)) != 0) failed = true;
  }
};

size_t Rank() { return Coin() ? Within(1, 9) : Within(1, 150); }

Tile TileOf(Rows& x, Rows& y, size_t count) {
  Tile tile{};
  tile.count = count;
  tile.next_y = Below(1 << 20);  // a place that nothing may touch
  for (size_t t = 0; t < count; ++t) tile.x[t] = x.row(t), tile.y[t] = y.row(t);
  return tile;
}

// u of a tile; NaN where there is no token, and past the rank.
std::vector<float> Projections(size_t tokens, size_t rank) {
  std::vector<float> u(ProjectionSize(rank), kNothing);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t r = 0; r < rank; ++r) u[ProjectionIndex(t, r)] = Random();
  }
  return u;
}

void Project(const Simd& simd, Result& result) {
  const size_t tokens = Within(1, kTile), in = Within(1, 90), rank = Rank();
  const size_t begin = Below(in + 1), end = Within(begin, in);
  Rows x(tokens, in), y(tokens, 0);
  Matrix a(in, rank, Coin());
  std::vector<float> u = Projections(tokens, rank);
  const std::vector<float> before = u;
  simd.project(TileOf(x, y, tokens), begin, end, a.weights(), rank, u.data());
  std::vector<bool> seen(u.size());
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t r = 0; r < rank; ++r) {
      const size_t at = ProjectionIndex(t, r);
      Sum sum(static_cast<double>(before[at]));
      for (size_t i = begin; i < end; ++i) sum.Add(x.before(t, i) * a.at(i, r));
      result.Check(u[at], sum);
      seen[at] = true;
    }
  }
  for (size_t i = 0; i < u.size(); ++i) {
    if (!seen[i]) result.Same(u[i], before[i]);
  }
}

void Add(const Simd& simd, Result& result) {
  const size_t tokens = Within(1, kTile), out = Within(1, 90), rank = Rank();
  Rows x(tokens, 0), y(tokens, out);
  Matrix b(rank, out, Coin());
  const std::vector<float> u = Projections(tokens, rank);
  simd.add(TileOf(x, y, tokens), out, b.weights(), rank, u.data());
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t o = 0; o < out; ++o) {
      Sum sum(y.before(t, o));
      for (size_t r = 0; r < rank; ++r) sum.Add(static_cast<double>(u[ProjectionIndex(t, r)]) * b.at(r, o));
      result.Check(y.row(t)[o], sum);
    }
  }
}

void Bias(const Simd& simd, Result& result) {
  const size_t tokens = Within(1, kTile), out = Within(1, 90), rest = Below(4);
  Rows x(tokens, 0), y(tokens, out + rest);
  Matrix bias(1, out, Coin());
  simd.bias(TileOf(x, y, tokens), out, bias.weights());
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t o = 0; o < out; ++o) {
      Sum sum(y.before(t, o));
      sum.Add(bias.at(0, o));
      result.Check(y.row(t)[o], sum);
    }
    for (size_t o = out; o < out + rest; ++o) result.Same(y.row(t)[o], static_cast<float>(y.before(t, o)));
  }
}

void Expand(const Simd& simd, Result& result) {
  const size_t tokens = Within(1, kTile), size = Coin() ? Within(1, 6) : Within(1, 40), groups = Within(0, 60);
  const size_t rank = Rank(), count = Within(1, 4), rest = Below(size), out = groups * size + rest;
  Rows x(tokens, 0), y(tokens, out);
  Matrix b(rank, groups, Coin()), kernels(count, groups * size, Coin());
  const std::vector<float> u = Projections(tokens, rank);
  std::vector<WeightedKernel> weighted;
  for (size_t k = 0; k < count; ++k) weighted.push_back({kernels.weights().row(k), Random()});
  simd.expand(TileOf(x, y, tokens), groups, size, b.weights(), rank, u.data(), weighted.data(), count);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t o = 0; o < groups * size; ++o) {
      Sum kernel, value, sum(y.before(t, o));
      for (size_t k = 0; k < count; ++k) kernel.Add(static_cast<double>(weighted[k].weight) * kernels.at(k, o));
      for (size_t r = 0; r < rank; ++r) value.Add(static_cast<double>(u[ProjectionIndex(t, r)]) * b.at(r, o / size));
      sum.Add(kernel.value * value.value);
      sum.size += kernel.size * value.size;
      result.Check(y.row(t)[o], sum);
    }
    for (size_t o = groups * size; o < out; ++o) result.Same(y.row(t)[o], static_cast<float>(y.before(t, o)));
  }
}

void Axpy(const Simd& simd, Result& result) {
  const size_t n = Within(0, 90);
  const float a = Random();
  Matrix x(1, n, Coin());
  Rows y(1, n);
  simd.axpy(n, a, x.weights(), y.row(0));
  for (size_t i = 0; i < n; ++i) {
    Sum sum(y.before(0, i));
    sum.Add(static_cast<double>(a) * x.at(0, i));
    result.Check(y.row(0)[i], sum);
  }
}

void Dot(const Simd& simd, Result& result) {
  const size_t n = Within(0, 200);
  Rows x(1, n);
  Matrix w(1, n, Coin());
  Sum sum;
  for (size_t i = 0; i < n; ++i) sum.Add(x.before(0, i) * w.at(0, i));
  result.Check(simd.dot(n, x.row(0), w.weights()), sum);
}

// An error of a score is one of the share, relative to the share.
void Share(const Simd& simd, Result& result) {
  const size_t tokens = Within(1, kTile), in = Within(1, 90), experts = Within(1, 9);
  Rows x(tokens, in), y(tokens, 0);
  Matrix gate(experts, in, Coin());
  Block shares(experts * kTile, sizeof(float));
  simd.share(TileOf(x, y, tokens), in, gate.weights(), experts, shares.as<float>());
  for (size_t t = 0; t < tokens; ++t) {
    std::vector<double> p;
    double total = 0, size = 1;
    for (size_t e = 0; e < experts; ++e) {
      Sum score;
      for (size_t i = 0; i < in; ++i) score.Add(x.before(t, i) * gate.at(e, i));
      total += p.emplace_back(std::exp(score.value));
      size += score.size;
    }
    for (size_t e = 0; e < experts; ++e) {
      Sum share(p[e] / total);
      share.size *= size;
      result.Check(shares.as<float>()[e * kTile + t], share);
    }
  }
}

// Reads every float16 value.
void Number(Result& result) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    if ((half >> 10 & 31) == 31) continue;
    result.Same(eptx::ops::Number({&half, true, 1}, 0), FromHalf(half));
  }
}

bool Report(const Result& result) {
  std::printf("%-16s %-8s %9zu numbers, off by %.1e%s\n", result.set, result.function, result.numbers, result.worst,
              result.failed ? "  FAILED" : "");
  return !result.failed;
}

}  // namespace

int main(int argc, char** argv) {
  const size_t rounds = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 1000;
  const Simd* tables[8];
  const size_t count = eptx::ops::AllSimd(tables, 8);
  if (count == 0 || tables[0] != &eptx::ops::BestSimd()) return std::puts("no instruction set, or not the best"), 1;
  struct {
    const char* name;
    void (*test)(const Simd&, Result&);
  } constexpr tests[] = {{"project", Project}, {"bias", Bias}, {"add", Add},
                         {"expand", Expand},   {"axpy", Axpy}, {"dot", Dot},
                         {"share", Share}};
  Result numbers{"any", "number"};
  Number(numbers);
  bool good = Report(numbers);
  for (size_t i = 0; i < count; ++i) {
    for (const auto& test : tests) {
      Result result{tables[i]->name, test.name};
      for (size_t round = 0; round < rounds; ++round) test.test(*tables[i], result);
      good = Report(result) && good;
    }
  }
  return good ? 0 : 1;
}
