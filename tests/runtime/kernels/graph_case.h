// Draws random graphs of one node of domain ai.eptx. Some are sound. Others are wrong in a tensor's shape, type or
// content, in the node's attributes, or in the number of inputs.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "graph_draw.h"

namespace eptx::graph_fuzz {

// Element types, with the numbers of ONNX and ONNX Runtime.
enum Type : int { kFloat = 1, kInt32 = 6, kInt64 = 7, kBool = 9, kHalf = 10, kDouble = 11 };
size_t TypeSize(Type type);

// What the numbers of an operand mean.
enum class Content { kNumbers, kRoute, kExperts, kSizes, kColumns, kMask, kBias, kDirections };

struct Operand {
  std::string name;
  Type type;
  Content content;
  bool constant;  // an initializer of the graph; otherwise an input
  bool own;       // a tensor of the adapter
};

// A node without its tensors.
struct Node {
  std::string op;        // "BiasedPackedPyramidDelta3"
  std::string single;    // "PyramidDelta"
  size_t modules = 1, bases = 0;
  bool packed = false, biased = false;
  std::vector<Operand> operands;
  std::vector<Type> outputs;
  std::map<std::string, int64_t> attributes;
  size_t inputs = 0;     // how many operands are given
  bool special = false;  // numbers may be NaN, infinite or too large for exact sums: outputs are not compared
};

// A tensor. It is all zeros where it has too many numbers to draw.
struct Array {
  std::vector<int64_t> dims;
  size_t count = 0;   // of numbers
  std::string bytes;  // drawn; empty with numbers: `count` zeros
};

// The sizes that tensors share.
struct Sizes {
  struct Module {
    int64_t out, rank, features, columns, experts, tasks, factors;
  };
  int64_t rows, length, tokens, in, top_k, planes, groups, experts, one = 1;
  int layout;
  std::vector<Module> modules;
};

struct Case {
  std::vector<Array> arrays;  // of the operands
  // The kernel must refuse it: an adapter's tensor is empty, or no machine can compute such sizes. Sizes that a machine
  // computes slowly are not drawn.
  bool impossible = false;
};

bool IsDelta(const std::string& single);
bool IsChosen(const std::string& single);
bool IsMixture(const std::string& single);

Node DrawNode(Random& random);
Sizes DrawSizes(const Node& node, Random& random);

// Draws the tensors of a node; one time in three with a mistake. `constants` gives the constant operands, if not null.
Case DrawCase(const Node& node, Sizes sizes, const Case* constants, Random& random);

std::string Describe(const Node& node, const Case& drawn);

}  // namespace eptx::graph_fuzz
