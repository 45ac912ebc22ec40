// Graphs of one node of domain ai.eptx, drawn at random: sound ones, and ones that are wrong in every way that a
// tensor's shape, type and content, a node's attributes and its number of inputs can be.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "graph_draw.h"

namespace eptx::graph_fuzz {

// Element types, by their numbers in ONNX and ONNX Runtime alike.
enum Type : int { kFloat = 1, kInt32 = 6, kInt64 = 7, kBool = 9, kHalf = 10, kDouble = 11 };
size_t TypeSize(Type type);

// What an operand's numbers are.
enum class Content { kNumbers, kRoute, kExperts, kSizes, kColumns, kMask, kBias, kDirections };

struct Operand {
  std::string name;
  Type type;
  Content content;
  bool constant;  // an initializer of the graph; else an input
  bool own;       // what belongs to an adapter
};

// A node, but for its tensors.
struct Node {
  std::string op;        // "BiasedPackedPyramidDelta3"
  std::string single;    // "PyramidDelta"
  size_t modules = 1, bases = 0;
  bool packed = false, biased = false;
  std::vector<Operand> operands;
  std::vector<Type> outputs;
  std::map<std::string, int64_t> attributes;
  size_t inputs = 0;     // how many of the operands are given
  bool special = false;  // numbers may be NaN, infinite or beyond exact sums: what is computed is not compared
};

// A tensor: its bytes are zeros where there are too many to draw.
struct Array {
  std::vector<int64_t> dims;
  size_t count = 0;   // of numbers
  std::string bytes;  // drawn; empty with numbers: `count` zeros
};

// The sizes that tensors share.
struct Sizes {
  struct Module {
    int64_t out, rank, features, columns, experts, tasks;
  };
  int64_t rows, length, in, top_k, planes, groups, experts, one = 1;
  int layout;
  std::vector<Module> modules;
};

struct Case {
  std::vector<Array> arrays;  // of the operands
  // To be refused: an adapter's tensor without numbers, or sizes that no machine could compute with. Sizes between
  // those and what takes a moment are not drawn.
  bool impossible = false;
};

bool IsDelta(const std::string& single);

Node DrawNode(Random& random);
Sizes DrawSizes(const Node& node, Random& random);

// The tensors of a node, one time in three with a mistake. Where `constants` is given, constant operands are those.
Case DrawCase(const Node& node, Sizes sizes, const Case* constants, Random& random);

std::string Describe(const Node& node, const Case& drawn);

}  // namespace eptx::graph_fuzz
