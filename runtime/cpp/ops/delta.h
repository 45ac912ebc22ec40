// What the three updates of a linear's output have in common: y' = y + the adapter's update of x, for several modules
// that read one x, each row by its own route.
//
// A method says how it reads one module's constants, what a call's routes are, and what it does to a tile:
//
//     struct Method {
//       static constexpr size_t kShared, kOwn;             // inputs of the node, and of each module
//       static constexpr bool kSees;                       // a further output for each module, of what it saw in x
//       struct Module;                                     // one module's constants, among them its width: size_t out
//       struct Routes;                                     // std::vector<int64_t> rows: equal entries share a route
//       explicit Method(const Node&);                      // attributes
//       Module ReadModule(const Tensor* own) const;
//       Routes ReadRoutes(const Tensor* shared) const;
//       void Prepare(const std::vector<Module>&, const Tensor& x, const Call&, size_t further_output, Routes&) const;
//       size_t Cost(const Module&, size_t in) const;        // multiplications of a token
//       size_t Scratch(const Module&) const;               // floats that Apply needs
//       void Apply(const Module&, size_t module, const Routes&, size_t row, size_t in, const Tile&, float*) const;
//     };
#pragma once

#include <atomic>
#include <cstring>
#include <optional>

#include "ops/kernel.h"
#include "ops/tiles.h"

namespace eptx::ops {

// Below so many multiplications a second thread costs more than it takes over.
constexpr size_t kWorthAThread = 450'000;

template <class Method>
class Delta final : public Kernel {
 public:
  Delta(const Node& node, const Signature& signature)
      : method_(node),
        form_(signature.form),
        count_(signature.modules),
        outputs_(signature.in_place),
        biases_(signature.biased ? outputs_ : 0),
        constants_(count_) {
    for (size_t m = 0; m < count_; ++m) {
      Tensor own[Method::kOwn];
      bool all = true;
      for (size_t i = 0; i < Method::kOwn; ++i) all = all && node.Constant(own_input(m) + i, &own[i]);
      if (all) constants_[m] = method_.ReadModule(own);
    }
    for (size_t i = 0; i < biases_.size(); ++i) {
      Tensor bias;
      if (node.Constant(outputs_ + i, &bias)) biases_[i] = bias;
    }
    packed_ = form_ == Form::kPacked && node.Constant(columns_input(), &columns_);
  }

  void Compute(const Call& call) const override {
    const Tensor x = call.Input(x_input());
    const size_t in = x.last();
    const float* x_data = x.floats("x");
    if (in == 0) Refuse("x has no features");
    const size_t tokens = x.size / in;
    Tensor shared[Method::kShared];
    for (size_t i = 0; i < Method::kShared; ++i) shared[i] = call.Input(x_input() + 1 + i);
    std::vector<typename Method::Module> modules = Modules(call);
    typename Method::Routes routes = method_.ReadRoutes(shared);
    if (routes.rows.empty() || tokens % routes.rows.size() != 0) {
      Refuse("x has %zu tokens for %zu rows", tokens, routes.rows.size());
    }
    method_.Prepare(modules, x, call, outputs_, routes);
    Target targets[kMaxModules];
    Outputs(call, tokens, modules, targets);
    if (tokens == 0) return;
    const Tiles tiles(routes.rows, tokens / routes.rows.size());

    size_t cost = 0, scratch = 0;
    for (const auto& module : modules) {
      cost += method_.Cost(module, in);
      scratch = std::max(scratch, method_.Scratch(module));
    }
    std::atomic<bool> out_of_memory{false};
    const auto compute = [&](size_t index) noexcept {
      Buffer buffer(scratch);
      if (buffer.data() == nullptr) {
        out_of_memory = true;
        return;
      }
      const Tiles::Tokens tokens = tiles.at(index % tiles.count());
      const size_t first = index / tiles.count();
      const size_t last = form_ == Form::kPacked ? count_ : first + 1;
      ComputeTile(tokens, x_data, in, modules, first, last, targets, routes, buffer.data());
    };
    // Module after module, so that one module's weights stay near. Modules that share rows of y take turns at a tile.
    const size_t items = tiles.count() * (form_ == Form::kPacked ? 1 : count_);
    if (tokens * cost < kWorthAThread) {
      for (size_t index = 0; index < items; ++index) compute(index);
    } else {
      call.ForEach(items, compute);
    }
    if (out_of_memory) throw std::bad_alloc();
  }

 private:
  // Where a module's base output is read and its adapted one written; the same place where ONNX Runtime allows it.
  struct Target {
    const float* from;
    float* to;
    size_t width;          // of a token's row
    size_t column;         // the module's first in it
    bool first;            // whether this is the row's first module, which brings it over and adds its bias
    Weights bias;          // of the whole row; no data: none
  };

  // A tile's working memory: on the stack unless it is large.
  class Buffer {
   public:
    explicit Buffer(size_t floats) {
      if (floats > kSmall) large_.reset(new (std::nothrow) float[floats]);
      data_ = floats > kSmall ? large_.get() : small_;
    }
    float* data() { return data_; }

   private:
    static constexpr size_t kSmall = 2048;
    alignas(64) float small_[kSmall];
    std::unique_ptr<float[]> large_;
    float* data_;
  };

  size_t columns_input() const { return outputs_ + biases_.size(); }
  size_t x_input() const { return columns_input() + (form_ == Form::kPacked ? 1 : 0); }
  size_t own_input(size_t module) const { return x_input() + 1 + Method::kShared + module * Method::kOwn; }

  std::vector<typename Method::Module> Modules(const Call& call) const {
    std::vector<typename Method::Module> modules;
    modules.reserve(count_);
    for (size_t m = 0; m < count_; ++m) {
      if (constants_[m]) {
        modules.push_back(*constants_[m]);
        continue;
      }
      Tensor own[Method::kOwn];
      for (size_t i = 0; i < Method::kOwn; ++i) own[i] = call.Input(own_input(m) + i);
      modules.push_back(method_.ReadModule(own));
    }
    return modules;
  }

  void Outputs(const Call& call, size_t tokens, const std::vector<typename Method::Module>& modules,
               Target* targets) const {
    if (form_ == Form::kSeparate) {
      for (size_t m = 0; m < count_; ++m) {
        targets[m] = Output(call, m, tokens);
        if (targets[m].width != modules[m].out) {
          Refuse("y has %zu features; the adapter has %zu", targets[m].width, modules[m].out);
        }
      }
      return;
    }
    const Target all = Output(call, 0, tokens);
    const Tensor columns = packed_ ? columns_ : call.Input(columns_input());
    const int64_t* bounds = columns.integers("columns");
    if (columns.size != 2 * count_) Refuse("columns has %zu entries for %zu modules", columns.size, count_);
    for (size_t m = 0, end = 0; m < count_; ++m) {
      const int64_t begin = bounds[2 * m], stop = bounds[2 * m + 1];
      if (begin < static_cast<int64_t>(end) || stop < begin || stop > static_cast<int64_t>(all.width)) {
        Refuse("columns are not ascending ranges of the %zu features of y", all.width);
      }
      end = static_cast<size_t>(stop);
      if (end - static_cast<size_t>(begin) != modules[m].out) {
        Refuse("columns has %zu features; the adapter has %zu", end - static_cast<size_t>(begin), modules[m].out);
      }
      targets[m] = all;
      targets[m].column = static_cast<size_t>(begin);
      targets[m].first = m == 0;
    }
  }

  Target Output(const Call& call, size_t index, size_t tokens) const {
    const Tensor y = call.Input(index);
    float* to = call.Output<float>(index, y.dims.data(), y.rank);
    const float* from = y.floats("y");
    if (tokens == 0 ? y.size != 0 : y.size % tokens != 0 || y.last() != y.size / tokens) {
      Refuse("y has %zu numbers for %zu tokens of x", y.size, tokens);
    }
    return {from, to, y.last(), 0, true, Bias(call, index, y.last())};
  }

  Weights Bias(const Call& call, size_t index, size_t width) const {
    if (biases_.empty()) return {nullptr, false, 0};
    const Tensor bias = biases_[index] ? *biases_[index] : call.Input(outputs_ + index);
    if (bias.size != width) Refuse("bias has %zu numbers for %zu features", bias.size, width);
    return bias.weights("bias", 1);
  }

  void ComputeTile(const Tiles::Tokens& tokens, const float* x, size_t in,
                   const std::vector<typename Method::Module>& modules, size_t first, size_t last,
                   const Target* targets, const typename Method::Routes& routes, float* scratch) const noexcept {
    Tile tile;
    tile.count = tokens.count;
    for (size_t t = 0; t < tokens.count; ++t) tile.x[t] = x + tokens.index[t] * in;
    for (size_t m = first; m < last; ++m) {
      const Target& target = targets[m];
      tile.next_y = kTile * target.width;
      for (size_t t = 0; t < tokens.count; ++t) tile.y[t] = target.to + tokens.index[t] * target.width;
      if (target.first) Begin(target, tokens, tile);
      for (size_t t = 0; t < tokens.count; ++t) tile.y[t] += target.column;
      method_.Apply(modules[m], m, routes, tokens.row, in, tile, scratch);
    }
  }

  // Makes the rows of a tile what the updates are added to.
  static void Begin(const Target& target, const Tiles::Tokens& tokens, const Tile& tile) noexcept {
    for (size_t t = 0; t < tokens.count && target.from != target.to; ++t) {
      std::memcpy(tile.y[t], target.from + tokens.index[t] * target.width, target.width * sizeof(float));
    }
    if (target.bias.data != nullptr) BestSimd().bias(tile, target.width, target.bias);
  }

  const Method method_;
  const Form form_;
  const size_t count_;
  const size_t outputs_;
  std::vector<std::optional<Tensor>> biases_;
  std::vector<std::optional<typename Method::Module>> constants_;
  Tensor columns_;
  bool packed_ = false;  // whether columns_ is known
};

// The operators of a method: alone, for 2 .. kMaxModules modules, and for 1 .. kMaxModules of a packed projection; each
// also with the biases that follow the base outputs.
template <class Method>
void AddDeltas(const std::string& name, std::vector<Signature>& signatures) {
  const auto add = [&](std::string full, Form form, bool biased, size_t modules) {
    Signature signature;
    signature.name = biased ? "Biased" + full : std::move(full);
    signature.form = form;
    signature.biased = biased;
    signature.modules = modules;
    signature.in_place = form == Form::kPacked ? 1 : modules;
    auto& inputs = signature.inputs;
    inputs.assign(signature.in_place, kFloat);
    if (biased) inputs.insert(inputs.end(), signature.in_place, kAny);
    if (form == Form::kPacked) inputs.push_back(kInt64);
    inputs.push_back(kFloat);
    inputs.insert(inputs.end(), Method::kShared + modules * Method::kOwn, kAny);
    signature.outputs.assign(signature.in_place + (Method::kSees ? modules : 0), kFloat);
    signature.make = [](const Node& node, const Signature& s) -> std::unique_ptr<Kernel> {
      return std::make_unique<Delta<Method>>(node, s);
    };
    signatures.push_back(std::move(signature));
  };
  for (const bool biased : {false, true}) {
    for (size_t modules = 1; modules <= kMaxModules; ++modules) {
      add(modules == 1 ? name : name + std::to_string(modules), Form::kSeparate, biased, modules);
      add("Packed" + name + std::to_string(modules), Form::kPacked, biased, modules);
    }
  }
}

}  // namespace eptx::ops
