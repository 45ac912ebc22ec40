#include "graph_case.h"

#include <algorithm>
#include <cstring>

namespace eptx::graph_fuzz {
namespace {

constexpr size_t kMostNumbers = size_t{1} << 22;  // of a tensor
constexpr double kMostWork = 5e5;                 // multiplications of a case that is computed
constexpr double kAnyMachine = 140737488355328.0;  // 2^47 bytes: an address space

// The shape of an operand by its name, where `part` is the number of its module or base output.
std::vector<int64_t*> ShapeOf(const Node& node, const std::string& name, size_t part, Sizes& s, int64_t& width) {
  Sizes::Module& m = s.modules[std::min(part, s.modules.size() - 1)];
  const bool tucker = node.single == "TuckerDelta";
  if (name == "bias") return {&width};
  if (name == "columns") return {};
  if (name == "route" || name == "group" || name == "task_id") return {&s.rows};
  if (name == "weights") return tucker ? std::vector{&s.rows, &s.experts} : std::vector{&m.tasks, &s.top_k};
  if (name == "experts") return {&m.tasks, &s.top_k};
  if (IsChosen(node.single)) {
    if (name == "experts" || name == "weights") return {&s.tokens, &s.top_k};
    if (name == "gate") return {&m.experts, &s.in};
    if (name == "a") return {&s.in, &m.factors};
    if (name == "b") return {&m.experts, &m.rank, &m.out};
    if (name == "m") return {&s.rows, &s.length, &s.top_k, &s.in};
    return {&s.rows, &s.length, name == "x" ? &s.in : &width};
  }
  if (IsMixture(node.single)) {
    const bool token = node.single == "TokenMixtureDelta";
    if (name == "gate") return {&m.experts, token ? &s.in : &m.rank};
    if (name == "a") return {&s.in, token ? &m.factors : &m.rank};
    if (name == "b") return {&m.experts, &m.rank, &m.out};
  }
  const bool low = node.single == "LowRankDelta";
  if (name == "a") return low ? std::vector{&m.tasks, &s.in, &m.rank} : std::vector{&m.features, &m.rank};
  if (name == "b") return low ? std::vector{&m.tasks, &m.rank, &m.out} : std::vector{&m.rank, &m.columns};
  if (name == "kernels") return {&m.experts, &m.out};
  if (name == "sizes") return {&m.experts};
  if (name == "u") return {&s.in, &m.rank};
  if (name == "g") return {&s.groups, &s.planes, &m.rank, &m.rank};
  if (name == "c") return {&s.experts, &s.planes};
  if (name == "p") return {&m.rank, &m.out};
  if (name == "task_embedding") return {&m.tasks, &s.in};
  if (name == "gate_weight") return {&m.experts, &s.in};
  if (name == "gate_bias") return {&m.experts};
  if (name == "mask") return {&s.rows, &s.length};
  if (name == "centroids") return {&m.experts, &s.in};
  std::vector<int64_t*> shape;  // x or y
  if (s.layout == 1) shape = {&s.rows};
  if (s.layout == 2) shape = {&s.one, &s.rows, &s.length};
  if (s.layout == 3) shape = {&s.rows, &s.one, &s.length};
  if (shape.empty()) shape = {&s.rows, &s.length};
  shape.push_back(name == "x" ? &s.in : &width);
  return shape;
}

// "kernels_2" as "kernels" and 2.
std::pair<std::string, size_t> Split(const std::string& name) {
  const size_t end = name.find_last_not_of("0123456789");
  if (end + 1 == name.size() || name[end] != '_') return {name, 0};
  return {name.substr(0, end), std::stoul(name.substr(end + 1))};
}

int64_t Width(const Node& node, const Sizes& sizes, size_t part) {
  if (!node.packed) return sizes.modules.empty() ? 1 : sizes.modules[std::min(part, sizes.modules.size() - 1)].out;
  uint64_t width = 2;
  for (const Sizes::Module& module : sizes.modules) width += static_cast<uint64_t>(module.out) + 1;
  return static_cast<int64_t>(std::min<uint64_t>(width, INT64_MAX));
}

double Numbers(const std::vector<int64_t>& dims) {
  double count = 1;
  for (const int64_t dim : dims) count *= static_cast<double>(dim);
  return count;
}

void Put(std::string& bytes, Type type, double value) {
  const auto add = [&](auto number) { bytes.append(reinterpret_cast<const char*>(&number), sizeof number); };
  const double number = value == value ? value : 0;
  const int64_t integer = number >= 9e18 ? INT64_MAX : number <= -9e18 ? INT64_MIN : static_cast<int64_t>(number);
  switch (type) {
    case kFloat: return add(static_cast<float>(value));
    case kDouble: return add(value);
    case kInt64: return add(integer);
    case kInt32: return add(static_cast<int32_t>(std::clamp<int64_t>(integer, INT32_MIN, INT32_MAX)));
    case kBool: return add(static_cast<char>(value != 0));
    case kHalf: {  // exact for the numbers that are drawn: 0, +-1, n / 1024 below 1 and special ones
      if (value != value) return add(uint16_t{0x7e00});
      const uint16_t sign = value < 0 ? 0x8000 : 0;
      double size = value < 0 ? -value : value;
      if (size > 60000) return add(static_cast<uint16_t>(sign | 0x7c00));
      if (size < 1e-4) return add(sign);
      int exponent = 15;
      for (; size < 1; size *= 2) --exponent;
      for (; size >= 2; size /= 2) ++exponent;
      return add(static_cast<uint16_t>(sign | exponent << 10 | static_cast<int>((size - 1) * 1024)));
    }
  }
}

// Draws one number. Sums of these numbers are whole and below 2^24, so that they are equal in any order.
double Draw(const Node& node, Content content, const Sizes& s, size_t part, size_t index, bool odd, Random& random) {
  const Sizes::Module& m = s.modules[std::min(part, s.modules.size() - 1)];
  if (odd) return static_cast<double>(Odd(random));
  const bool inferring = node.single == "RoutedPyramidDelta" || node.single == "PyramidRouter";
  const bool told = node.single == "PyramidDelta";
  switch (content) {
    case Content::kRoute:
      if (node.single == "TuckerDelta") return static_cast<double>(Below(random, std::max<int64_t>(s.groups, 1)));
      // an id past the last task switches an adapter off; a pyramid's route is never past the last
      return static_cast<double>(Within(random, inferring ? -1 : 0, std::max<int64_t>(m.tasks, 1) - (told ? 1 : 0)));
    // past the last is none of a token's; a task's are never past the last
    case Content::kExperts: return static_cast<double>(Below(random, std::max<int64_t>(m.experts, 1) + (told ? 0 : 2)));
    case Content::kSizes: return static_cast<double>(Within(random, 1, 6));
    case Content::kMask: return static_cast<double>(Below(random, 2));
    // further apart than rounding, so that both choose the same experts
    case Content::kBias: return static_cast<double>(index % 32) / 1024;
    // not whole: near 0, rounding decides the direction
    case Content::kDirections: return static_cast<double>(Within(random, -1000, 1000)) / 1024;
    default: break;
  }
  if (!node.special) return static_cast<double>(Within(random, -1, 1));
  return Pick(random, {0.0, 1.0, -1.0, 1e30, -1e-30, 1e-42, 1.0 / 0.0, -1.0 / 0.0, 0.0 / 0.0});
}

void Fill(const Node& node, const Operand& operand, const Sizes& sizes, size_t part, Array& array, Random& random) {
  const double count = Numbers(array.dims);
  array.bytes.clear();
  array.count = count > 0 && count < 1e18 ? static_cast<size_t>(count) : 0;
  if (array.count > 1 << 14) return;
  const bool all_large = operand.content == Content::kSizes && Once(random, 6), some_odd = Once(random, 24);
  int64_t at = 0;
  for (size_t i = 0; i < array.count; ++i) {
    double value = 0;
    if (operand.content == Content::kColumns) {
      const int64_t out = sizes.modules[std::min(i / 2, sizes.modules.size() - 1)].out;
      at += i % 2 == 0 ? Below(random, 2) : std::min<int64_t>(out, 1 << 30);
      value = static_cast<double>(at);
    } else {
      value = Draw(node, operand.content, sizes, part, i, false, random);
    }
    if (all_large) value = static_cast<double>(Pick<int64_t>(random, {100, 1000, int64_t{1} << 40, INT64_MAX}));
    const bool is_odd = some_odd && operand.content >= Content::kRoute && operand.content <= Content::kColumns;
    if (is_odd && Once(random, 3)) value = Draw(node, operand.content, sizes, part, i, true, random);
    Put(array.bytes, operand.type, value);
  }
}

// Makes two of the sizes large, and sets others to 0 until every tensor fits into memory.
void Enlarge(const Node& node, Sizes& s, Random& random) {
  int64_t width = 0;  // of packed modules: it follows from theirs
  const auto shapes = [&] {
    std::vector<std::vector<int64_t*>> all;
    width = 4;
    for (const Operand& operand : node.operands) {
      const auto [name, part] = Split(operand.name);
      all.push_back(ShapeOf(node, name, part, s, width));
      if ((name == "y" || name == "bias") && !node.packed) all.back().back() = &s.modules[part].out;
    }
    return all;
  };
  std::vector<int64_t*> sizes;
  for (const auto& shape : shapes()) sizes.insert(sizes.end(), shape.begin(), shape.end());
  if (sizes.empty()) return;
  const bool alone = Once(random, 2);  // so that two large sizes fit into memory
  for (int64_t* size : sizes) *size = alone ? 1 : *size;
  for (int i = 0; i < 2; ++i) *sizes[Place(random, sizes.size())] = Large(random);
  if (alone) {  // and modules are alike, so that already the first is wrong
    const auto by_rank = [](const Sizes::Module& a, const Sizes::Module& b) { return a.rank < b.rank; };
    s.modules.assign(s.modules.size(), Sizes::Module(*std::max_element(s.modules.begin(), s.modules.end(), by_rank)));
  }
  for (const auto& shape : shapes()) {
    double count = 1;
    for (const int64_t* size : shape) count *= static_cast<double>(*size);
    if (count > static_cast<double>(kMostNumbers)) *shape[Place(random, shape.size())] = 0;
  }
}

// Bytes of what TuckerDelta and PooledMixtureDelta mix for all routes.
double Mixed(const Node& node, const Sizes& sizes) {
  double bytes = 0;
  for (const Sizes::Module& m : sizes.modules) {
    const double rank = static_cast<double>(m.rank);
    if (node.single == "TuckerDelta") bytes += 4 * static_cast<double>(sizes.rows) * rank * rank;
    const double square = rank * static_cast<double>(m.out);
    if (node.single == "PooledMixtureDelta") bytes += 4 * static_cast<double>(sizes.rows) * square;
  }
  return bytes;
}

// The approximate number of multiplications of a case.
double Work(const Node& node, const Sizes& sizes) {
  double work = Mixed(node, sizes);
  const double tokens = static_cast<double>(sizes.rows) * static_cast<double>(sizes.layout == 1 ? 1 : sizes.length);
  for (const Sizes::Module& m : sizes.modules) {
    const double rank = static_cast<double>(m.rank);
    const double in = static_cast<double>(sizes.in), out = static_cast<double>(m.out);
    const double tasks = static_cast<double>(m.tasks), experts = static_cast<double>(m.experts);
    work += tokens * (rank * (in + out) + tasks * in + experts * in);
    work += tasks * experts * in + experts * (in + out) * rank;
    if (IsMixture(node.single)) work += (tokens + static_cast<double>(sizes.rows)) * experts * rank * out;
  }
  return work;
}

const Array* Find(const Node& node, const Case& drawn, const std::string& name) {
  for (size_t i = 0; i < drawn.arrays.size(); ++i) {
    if (node.operands[i].name == name) return &drawn.arrays[i];
  }
  return nullptr;
}

// Sets the numbers after the last group of an expert's kernel to 0, as the operator requires.
void EndKernels(const Node& node, Case& drawn) {
  for (size_t i = 0; i < drawn.arrays.size(); ++i) {
    const auto [name, part] = Split(node.operands[i].name);
    Array& kernels = drawn.arrays[i];
    const Array* const sizes = name == "kernels" ? Find(node, drawn, "sizes_" + std::to_string(part)) : nullptr;
    if (sizes == nullptr || kernels.dims.size() != 2 || kernels.bytes.empty()) continue;
    const size_t out = static_cast<size_t>(kernels.dims[1]), width = TypeSize(node.operands[i].type);
    for (size_t e = 0; e < static_cast<size_t>(kernels.dims[0]) && 8 * e + 8 <= sizes->bytes.size(); ++e) {
      int64_t size = 0;
      std::memcpy(&size, sizes->bytes.data() + 8 * e, 8);
      const size_t end = size < 1 ? 0 : out / static_cast<size_t>(size) * static_cast<size_t>(size);
      std::fill_n(&kernels.bytes[0] + (e * out + end) * width, (out - end) * width, '\0');
    }
  }
}

// Makes a mistake in a tensor's shape.
void Bend(std::vector<int64_t>& dims, Random& random) {
  const auto at = dims.begin() + static_cast<std::ptrdiff_t>(dims.empty() ? 0 : Place(random, dims.size()));
  switch (dims.empty() ? 1 : Below(random, 6)) {
    case 0: dims.erase(at); break;
    case 1: dims.insert(at, Pick<int64_t>(random, {1, 1, 2, 0})); break;
    case 2: std::swap(*at, dims.back()); break;
    case 3: *at += *at == INT64_MAX || Once(random, 2) ? -1 : 1; break;
    default: *at = Odd(random);
  }
  for (int64_t& dim : dims) dim = std::max<int64_t>(dim, 0);
  // a shape that does not fit into memory gets a dimension of 0
  if (Numbers(dims) > 1 << 14) dims[Place(random, dims.size())] = 0;
  if (Numbers(dims) > 1 << 14) dims[0] = 0;
}

}  // namespace

Case DrawCase(const Node& node, Sizes sizes, const Case* constants, Random& random) {
  Case drawn;
  if (constants == nullptr && Once(random, 8)) Enlarge(node, sizes, random);
  if (Once(random, 40)) (Once(random, 2) ? sizes.rows : sizes.length) = 0;
  if (Once(random, 6)) sizes.length = 1;
  if (!Once(random, 30)) sizes.tokens = sizes.rows * sizes.length;
  const size_t bent = Once(random, 3) ? Place(random, node.operands.size()) : SIZE_MAX;
  drawn.impossible = false;
  for (size_t i = 0; i < node.operands.size(); ++i) {
    const Operand& operand = node.operands[i];
    if (constants != nullptr && operand.constant) {
      drawn.arrays.push_back(constants->arrays[i]);
      const bool is_bias = operand.name.rfind("bias", 0) == 0;
      drawn.impossible = drawn.impossible || (!is_bias && constants->arrays[i].count == 0);
      continue;
    }
    const auto [name, part] = Split(operand.name);
    Array array;
    int64_t width = Width(node, sizes, part);
    for (const int64_t* size : ShapeOf(node, name, part, sizes, width)) array.dims.push_back(*size);
    if (name == "columns") array.dims = {2 * static_cast<int64_t>(node.modules)};
    if (i == bent) Bend(array.dims, random);
    if (Numbers(array.dims) > static_cast<double>(kMostNumbers)) array.dims.back() = 0;
    Fill(node, operand, sizes, part, array, random);
    drawn.impossible = drawn.impossible || (operand.own && name != "bias" && array.count == 0);
    drawn.arrays.push_back(std::move(array));
  }
  const Array* x = Find(node, drawn, "x");
  const bool mixes = node.single != "PooledMixtureDelta" || x == nullptr || x->count != 0;  // for tokens alone
  drawn.impossible = drawn.impossible || (mixes && Mixed(node, sizes) > kAnyMachine);
  if (!Once(random, 16)) EndKernels(node, drawn);
  // a refused case takes no time
  if (!drawn.impossible && Work(node, sizes) > kMostWork) {
    return DrawCase(node, DrawSizes(node, random), constants, random);
  }
  return drawn;
}

std::string Describe(const Node& node, const Case& drawn) {
  std::string text = node.op + " {";
  for (const auto& [name, value] : node.attributes) text += " " + name + "=" + std::to_string(value);
  text += " }" + std::string(node.special ? " special" : "") + (drawn.impossible ? " impossible" : "");
  for (size_t i = 0; i < drawn.arrays.size(); ++i) {
    text += "\n  " + node.operands[i].name + (node.operands[i].constant ? " (constant)" : "") + " type " +
            std::to_string(node.operands[i].type) + " [";
    for (const int64_t dim : drawn.arrays[i].dims) text += " " + std::to_string(dim);
    text += " ]";
    if (node.operands[i].type != kInt64) continue;
    for (size_t n = 0; n + 8 <= drawn.arrays[i].bytes.size() && n < 160; n += 8) {
      int64_t value = 0;
      std::memcpy(&value, drawn.arrays[i].bytes.data() + n, 8);
      text += " " + std::to_string(value);
    }
  }
  return text;
}

}  // namespace eptx::graph_fuzz
