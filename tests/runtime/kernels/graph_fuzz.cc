// eptx_graph_fuzz FOLDER COUNT [SEED]: runs COUNT random cases of the operators of ai.eptx through the native kernels
// and through the functions in FOLDER (graph_bodies.py writes them), which are standard operators.
//
// Ends with 0 where both agree in every case, and enough of the cases were computed. They agree where:
//   - A kernel may refuse what a function computes: a shape that broadcasts, an index counted from the end.
//   - A function must not refuse what a kernel computes, unless it reaches its limit of memory, or there are no tokens
//     and the kernel's outputs are empty.
//   - Both give outputs of the same shapes and numbers. The numbers drawn are whole, and their sums are exact in any
//     order, so an update has the same bits except for the sign of a zero. Softmax, cosines and sigmoids are rounded:
//     to 1e-5 of the largest number, and to 1e-3 where a short vector is scaled to length 1 (TuckerRouter). Where two
//     tasks or groups are closer than that, each may choose either.
//   - Numbers that are NaN, infinite or very large must not crash; they are not compared, as a kernel skips experts
//     without weight.
// A sanitizer sees the end of each tensor. Seed and graph number determine a case; a failure prints both.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "graph_run.h"

namespace {

using namespace eptx::graph_fuzz;

constexpr int kCalls = 64;  // of a graph: each is a case
constexpr float kRounding = 1e-5f, kDirection = 1e-3f;

volatile unsigned long long graph = 0, seed = 1, cases = 0;
std::string story;  // of the case at hand

void Say(int signal) {
  char text[128];
  const int size = std::snprintf(text, sizeof text, "graph_fuzz: signal %d in graph %llu of seed %llu, case %llu\n",
                                 signal, graph, seed, cases);
  if (write(2, text, static_cast<size_t>(size)) < 0 || write(2, story.data(), story.size()) < 0) _exit(4);
  _exit(3);
}

#ifdef __SANITIZE_ADDRESS__
extern "C" void __sanitizer_set_death_callback(void (*)());
#endif

[[maybe_unused]] void Tell() {
  std::fprintf(stderr, "graph_fuzz: graph %llu of seed %llu, case %llu\n%s\n", graph, seed, cases, story.c_str());
}

struct Tally {
  unsigned long long computed = 0, refused = 0, near = 0;
};

[[noreturn]] void Disagree(const std::string& what) {
  std::fprintf(stderr, "graph_fuzz: graph %llu of seed %llu, case %llu: %s\n%s\n", graph, seed, cases, what.c_str(),
               story.c_str());
  std::exit(1);
}

bool Exact(const Node& node) { return IsDelta(node.single) && node.single != "RoutedPyramidDelta"; }

float Largest(const std::vector<float>& numbers) {
  float largest = 0;
  for (const float number : numbers) largest = std::max(largest, std::fabs(number));
  return largest;
}

bool Near(const std::vector<float>& a, const std::vector<float>& b, float tolerance) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](float x, float y) { return std::fabs(x - y) <= tolerance; });
}

// Whether two tasks of a row are equally similar.
bool IsTie(const Output& similarity) {
  const auto tasks = static_cast<size_t>(similarity.dims.back());
  for (size_t first = 0; tasks > 1 && first < similarity.floats.size(); first += tasks) {
    std::vector<float> row(similarity.floats.begin() + static_cast<std::ptrdiff_t>(first),
                           similarity.floats.begin() + static_cast<std::ptrdiff_t>(first + tasks));
    std::sort(row.begin(), row.end());
    if (row[tasks - 1] - row[tasks - 2] < 2 * kRounding) return true;
  }
  return false;
}

// Whether only rounding makes a and b choose different groups. Each chooses the group of its largest weight.
bool IsTie(const Answer& a, const Answer& b) {
  const size_t rows = a.outputs[0].integers.size(), experts = rows == 0 ? 0 : a.outputs[1].floats.size() / rows;
  for (size_t row = 0; row < rows; ++row) {
    const auto part = [&](const Answer& answer) {
      const float* const first = answer.outputs[1].floats.data() + row * experts;
      return std::vector<float>(first, first + experts);
    };
    const std::vector<float> x = part(a), y = part(b);
    const bool same = a.outputs[0].integers[row] == b.outputs[0].integers[row];
    if (same ? !Near(x, y, kDirection) : std::fabs(Largest(x) - Largest(y)) > kDirection) return false;
  }
  return true;
}

// Whether only rounding makes the choices differ.
bool IsTie(const Node& node, const Answer& kernels, const Answer& functions) {
  if (node.single == "TuckerRouter") return IsTie(kernels, functions);
  const size_t first = node.single == "PyramidRouter" ? 2 : node.bases;
  for (size_t i = first; i < functions.outputs.size(); ++i) {
    if (IsTie(functions.outputs[i])) return true;
  }
  return false;
}

void Compare(const Node& node, const Answer& kernels, const Answer& functions, Tally& tally) {
  bool same = true;
  for (size_t i = 0; i < kernels.outputs.size(); ++i) {
    const Output &a = kernels.outputs[i], &b = functions.outputs[i];
    if (a.dims != b.dims) Disagree("output " + std::to_string(i) + " has another shape");
    if (node.special) continue;
    const float tolerance = Exact(node) ? 0 : kRounding * std::max(1.0f, Largest(b.floats));
    same = same && a.integers == b.integers && Near(a.floats, b.floats, tolerance);
  }
  if (same) return;
  if (Exact(node) || !IsTie(node, kernels, functions)) Disagree("the numbers differ");
  ++tally.near;
}

bool IsMemory(const std::string& text) {
  return text.find("memory") != text.npos || text.find("smaller than requested") != text.npos;
}

bool HoldsNothing(const Answer& answer) {
  return std::all_of(answer.outputs.begin(), answer.outputs.end(),
                     [](const Output& output) { return output.floats.empty() && output.integers.empty(); });
}

void RunCase(const Node& node, const Case& drawn, const Session& kernels, const Session* functions, Tally& tally) {
  cases = cases + 1;
  story = Describe(node, drawn);
  const Answer a = kernels.Run(drawn);
  if (a.refused) {
    ++tally.refused;
    return;
  }
  if (drawn.impossible) Disagree("the kernel computes what it is to refuse");
  const auto refused = functions->refused();
  const Answer b = refused ? Answer{refused, {}} : functions->Run(drawn);
  if (b.refused && !IsMemory(*b.refused) && !HoldsNothing(a)) {
    Disagree("the kernel computes what the function refuses: " + *b.refused);
  }
  if (b.refused) return;
  ++tally.computed;
  Compare(node, a, b, tally);
}

void RunGraph(const std::string& folder, Tally& tally) {
  Random random(seed * 0x9E3779B97F4A7C15u + graph);
  const Node node = DrawNode(random);
  std::ifstream file(folder + "/" + node.op, std::ios::binary);
  const std::string functions{std::istreambuf_iterator<char>(file), {}};
  if (functions.empty()) Disagree("no functions of " + node.op + " in " + folder);
  const bool has_constants =
      std::any_of(node.operands.begin(), node.operands.end(), [](const Operand& o) { return o.constant; });
  Sizes sizes = DrawSizes(node, random);
  const Case first = DrawCase(node, sizes, nullptr, random);
  story = Describe(node, first);
  const std::string model = ModelBytes(node, first, functions);
  const Session kernels(node, model, true);
  if (kernels.refused()) {
    cases = cases + 1, ++tally.refused;
    return;
  }
  const Session plain(node, model, false);
  for (int call = 0; call < kCalls; ++call) {
    if (call == 0) {
      RunCase(node, first, kernels, &plain, tally);
      continue;
    }
    const Sizes drawn = DrawSizes(node, random);
    if (!has_constants) sizes = drawn;
    sizes.rows = drawn.rows, sizes.length = drawn.length, sizes.layout = drawn.layout;
    RunCase(node, DrawCase(node, sizes, has_constants ? &first : nullptr, random), kernels, &plain, tally);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::fprintf(stderr, "usage: eptx_graph_fuzz FOLDER COUNT [SEED]\n");
    return 2;
  }
  const unsigned long long count = std::strtoull(argv[2], nullptr, 10);
  if (argc == 4) seed = std::strtoull(argv[3], nullptr, 10);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_set_death_callback(Tell);
#else
  for (const int signal : {SIGSEGV, SIGFPE, SIGBUS, SIGILL}) std::signal(signal, Say);
#endif
  for (const int signal : {SIGALRM, SIGABRT}) std::signal(signal, Say);
  Tally tally;
  for (; cases < count; graph = graph + 1) {
    alarm(60);  // ends a graph that hangs
    RunGraph(argv[1], tally);
  }
  std::printf("%llu cases of seed %llu, %llu graphs: %llu computed by both, %llu refused, %llu near ties\n",
              static_cast<unsigned long long>(cases), static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(graph), tally.computed, tally.refused, tally.near);
  return tally.computed * 4 > count && tally.near * 50 < count ? 0 : 1;
}
