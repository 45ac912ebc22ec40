#include <algorithm>

#include "graph_case.h"

namespace eptx::graph_fuzz {
namespace {

struct Own {
  const char* name;
  Content content;
};

std::vector<Own> OwnOf(const std::string& single) {
  constexpr Content number = Content::kNumbers;
  if (single == "LowRankDelta") return {{"a", number}, {"b", number}};
  if (single == "TuckerDelta") return {{"u", number}, {"g", number}, {"c", number}, {"p", number}};
  if (single == "TuckerRouter") return {{"centroids", Content::kDirections}};
  if (single == "TopExperts") return {{"gate", number}};
  if (single == "ChosenExpertsMean") return {};
  if (IsChosen(single)) return {{"a", number}, {"b", number}};
  if (IsMixture(single)) return {{"gate", number}, {"a", number}, {"b", number}};
  std::vector<Own> own;
  if (single == "PyramidDelta") own = {{"experts", Content::kExperts}, {"weights", number}};
  if (single != "PyramidDelta") {
    own = {{"task_embedding", number}, {"gate_weight", number}, {"gate_bias", Content::kBias}};
  }
  if (single == "PyramidRouter") return own;
  for (const char* name : {"a", "b", "kernels"}) own.push_back({name, number});
  own.push_back({"sizes", Content::kSizes});
  return own;
}

// A router's own numbers: a graph holds them in float32, in which the functions score (eptx.exporter.ops).
bool IsRouters(const std::string& name) {
  for (const char* own : {"task_embedding", "gate_weight", "gate_bias", "gate", "centroids"}) {
    if (name == own) return true;
  }
  return false;
}

std::vector<Own> SharedOf(const std::string& single) {
  if (single == "LowRankDelta" || single == "PyramidDelta") return {{"route", Content::kRoute}};
  if (single == "RoutedPyramidDelta") return {{"task_id", Content::kRoute}};
  if (single == "TokenMixtureDelta") return {};
  if (single == "PooledMixtureDelta") return {{"mask", Content::kMask}};
  return {{"group", Content::kRoute}, {"weights", Content::kNumbers}};
}

}  // namespace

bool IsChosen(const std::string& single) { return single.find("Experts") != single.npos; }

bool IsDelta(const std::string& single) { return single.find("Delta") != single.npos && !IsChosen(single); }

bool IsMixture(const std::string& single) { return single.find("Mixture") != single.npos; }

size_t TypeSize(Type type) {
  switch (type) {
    case kBool: return 1;
    case kHalf: return 2;
    case kFloat: case kInt32: return 4;
    default: return 8;
  }
}

Node DrawNode(Random& random) {
  Node node;
  node.single = Pick<const char*>(random, {"LowRankDelta", "PyramidDelta", "RoutedPyramidDelta", "TuckerDelta",
                                           "TuckerDelta", "PyramidDelta", "PyramidRouter", "TuckerRouter",
                                           "TokenMixtureDelta", "PooledMixtureDelta", "TopExperts",
                                           "ChosenExpertsDelta", "ChosenExpertsMean", "ChosenExpertsSum"});
  const bool constant = Once(random, 2);
  const auto add = [&](std::string name, Content content, bool fixed, size_t part = SIZE_MAX) {
    const bool integer = content >= Content::kRoute && content <= Content::kColumns;
    Type type = integer ? kInt64 : kFloat;
    if (!integer && (fixed || part != SIZE_MAX) && !IsRouters(name) && Once(random, 4)) type = kHalf;
    if (content == Content::kMask) type = Pick(random, {kFloat, kInt64, kInt32, kBool});
    if (Once(random, 150)) type = Pick(random, {kFloat, kInt32, kInt64, kBool, kHalf, kDouble});
    if (type == kHalf && IsRouters(name)) type = kDouble;
    if (part != SIZE_MAX) name += "_" + std::to_string(part);
    node.operands.push_back({name, type, content, fixed && constant && !Once(random, 16), fixed});
  };
  const std::vector<Own> own = OwnOf(node.single);
  if (IsDelta(node.single)) {
    node.modules = static_cast<size_t>(Within(random, 1, 4));
    node.packed = Once(random, 3);
    node.biased = Once(random, 3);
    node.bases = node.packed ? 1 : node.modules;
    const std::string count = node.packed || node.modules > 1 ? std::to_string(node.modules) : "";
    node.op = std::string(node.biased ? "Biased" : "") + (node.packed ? "Packed" : "") + node.single + count;
    for (size_t i = 0; i < node.bases; ++i) add("y", Content::kNumbers, false, i), node.operands.back().type = kFloat;
    for (size_t i = 0; i < node.bases && node.biased; ++i) add("bias", Content::kNumbers, true, i);
    if (node.packed) add("columns", Content::kColumns, true);
    add("x", Content::kNumbers, false);
    for (const Own& shared : SharedOf(node.single)) add(shared.name, shared.content, false);
    for (size_t i = 0; i < node.modules; ++i) {
      for (const Own& o : own) add(o.name, o.content, true, i);
    }
    node.outputs.assign(node.bases + (node.single == "RoutedPyramidDelta" ? node.modules : 0), kFloat);
  } else if (IsChosen(node.single)) {
    node.op = node.single;
    const bool delta = node.single == "ChosenExpertsDelta", top = node.single == "TopExperts";
    const bool mean = node.single == "ChosenExpertsMean";
    if (!top && !mean) add("y", Content::kNumbers, false);
    add(delta || top ? "x" : "m", Content::kNumbers, false);
    if (!top && !mean) add("experts", Content::kExperts, false);
    if (!top && !delta) add("weights", Content::kNumbers, false);
    for (const Own& o : own) add(o.name, o.content, true);
    node.outputs = {kFloat};
    if (top) node.outputs = {kInt64, kFloat};
  } else {
    node.op = node.single;
    if (node.single == "PyramidRouter") add("task_id", Content::kRoute, false);
    add("x", Content::kNumbers, false);
    if (node.single == "TuckerRouter") add("mask", Content::kMask, false);
    for (const Own& o : own) add(o.name, o.content, true);
    node.outputs = {kInt64, kFloat};
    if (node.single == "PyramidRouter") node.outputs.push_back(kFloat);
  }
  node.inputs = node.operands.size() - (Once(random, 200) ? 1 : 0);
  // a softmax is no sum of whole numbers
  node.special = IsMixture(node.single) || node.single == "TopExperts" || Once(random, 16);
  const auto attribute = [&](const char* name, int64_t value) {
    if (!Once(random, 300)) node.attributes[name] = Once(random, 50) ? Odd(random) : value;
  };
  if (node.single.find("Pyramid") != node.single.npos && IsDelta(node.single)) {
    attribute("in_features", Once(random, 8) ? Within(random, 1, 80) : Within(random, 2, 20));
  }
  const bool chooses = node.single == "PyramidRouter" || node.single == "TopExperts";
  if (chooses || node.single == "RoutedPyramidDelta") attribute("top_k", Within(random, 1, 3));
  if (node.single == "TuckerRouter") attribute("groups", Within(random, 1, 4));
  return node;
}

Sizes DrawSizes(const Node& node, Random& random) {
  Sizes s{};
  const auto attribute = [&](const char* name, int64_t otherwise) {
    const auto found = node.attributes.find(name);
    return found == node.attributes.end() || found->second < 1 || found->second > 200 ? otherwise : found->second;
  };
  s.rows = Within(random, 1, 5);
  s.length = Once(random, 4) ? Within(random, 1, 17) : Within(random, 1, 4);
  s.layout = static_cast<int>(Below(random, 5));
  s.tokens = s.rows * s.length;
  s.in = attribute("in_features", Once(random, 8) ? Within(random, 1, 80) : Within(random, 1, 20));
  s.top_k = attribute("top_k", Within(random, 1, 4));
  s.groups = attribute("groups", Within(random, 1, 3));
  s.planes = Within(random, 1, 3);
  s.experts = Within(random, 1, 3);
  const int64_t tasks = Within(random, 1, 5);
  for (size_t i = 0; i < node.modules; ++i) {
    Sizes::Module m{};
    m.out = Once(random, 8) ? Within(random, 1, 80) : Within(random, 1, 20);
    m.rank = Once(random, 8) ? Within(random, 1, 70) : Within(random, 1, 9);
    m.features = s.in, m.columns = m.out;
    m.experts = node.single == "TuckerRouter" ? s.groups * s.experts : s.top_k + Below(random, 4);
    m.tasks = tasks;
    m.factors = m.rank * (IsChosen(node.single) || Once(random, 2) ? m.experts : 1);
    s.modules.push_back(m);
  }
  return s;
}

}  // namespace eptx::graph_fuzz
