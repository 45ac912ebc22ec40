// What the updates of a linear's output have in common: y' = y + the adapter's update of x, for several modules
// that read one x, each row by its own route.
//
// A method says how it reads one module's constants, what a call's routes are, and what it does to a tile:
//
//     struct Method {
//       static constexpr size_t kShared, kOwn;             // inputs of the node, and of each module
//       static constexpr bool kSees;                       // a further output for each module, of what it saw in x
//       struct Module;                                     // one module's constants, among them its width: size_t out
//       struct Routes;                                     // const int64_t* rows, size_t count: equals share one
//       explicit Method(const Node&);                      // attributes
//       Module ReadModule(const Tensor* own) const;
//       Routes ReadRoutes(const Tensor* shared) const;
//       void Prepare(Modules<Module>, const Tensor& x, const Call&, size_t further_output, Routes&) const;
//       size_t Cost(const Module&, size_t in) const;       // multiplications of a token
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

// The modules of a node.
template <class Module>
struct Modules {
  const Module* data;
  size_t count;

  const Module* begin() const { return data; }
  const Module* end() const { return data + count; }
  const Module& operator[](size_t index) const { return data[index]; }
};

template <class Method>
class Delta final : public Kernel {
 public:
  // Reads the model's constants: of a module whose inputs are all constant, nothing is left to be read in a call.
  Delta(const Node& node, const Signature& signature)
      : method_(node),
        form_(signature.form),
        count_(signature.modules),
        outputs_(signature.in_place),
        biases_(signature.biased ? outputs_ : 0),
        constants_(signature.inputs.size()) {
    for (size_t i = 0; i < constants_.size(); ++i) constants_[i] = node.Constant(i);
    const auto own = constants_.begin() + static_cast<std::ptrdiff_t>(own_input(0));
    if (!std::all_of(own, constants_.end(), [](const auto& constant) { return constant.has_value(); })) return;
    modules_ = ReadModules([&](size_t index) { return *constants_[index]; });
  }

  void Compute(const Call& call) const override {
    if (!modules_.empty()) return Compute(call, {modules_.data(), count_});
    const std::vector<Module> modules = ReadModules([&](size_t index) { return Input(call, index); });
    Compute(call, {modules.data(), count_});
  }

 private:
  using Module = typename Method::Module;
  using Routes = typename Method::Routes;

  // Where a module's base output is read and its adapted one written; the same place where ONNX Runtime allows it.
  struct Target {
    const float* from;
    float* to;
    size_t width;   // of a token's row
    size_t column;  // the module's first in it
    bool first;     // whether this is the row's first module, which brings it over and adds its bias
    Weights bias;   // of the whole row; no data: none
  };

  // What a call computes.
  struct Work {
    Modules<Module> modules;
    Routes routes;
    const float* x;
    size_t in, tokens;
    Target targets[kMaxModules];
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

  size_t columns_input() const { return outputs_ + biases_; }
  size_t x_input() const { return columns_input() + (form_ == Form::kPacked ? 1 : 0); }
  size_t own_input(size_t module) const { return x_input() + 1 + Method::kShared + module * Method::kOwn; }

  Tensor Input(const Call& call, size_t index) const {
    return constants_[index] ? *constants_[index] : call.Input(index);
  }

  template <class F>
  std::vector<Module> ReadModules(const F& input) const {
    std::vector<Module> modules;
    modules.reserve(count_);
    for (size_t m = 0; m < count_; ++m) {
      Tensor own[Method::kOwn];
      for (size_t i = 0; i < Method::kOwn; ++i) own[i] = input(own_input(m) + i);
      modules.push_back(method_.ReadModule(own));
    }
    return modules;
  }

  void Compute(const Call& call, Modules<Module> modules) const {
    Work work{};
    work.modules = modules;
    Read(call, work);
    if (work.tokens != 0) Run(call, work);
  }

  // The rest of a call's tensors, checked.
  void Read(const Call& call, Work& work) const {
    const Tensor x = Input(call, x_input());
    work.in = x.last();
    work.x = x.floats("x");
    if (work.in == 0) Refuse("x has no features");
    Tensor shared[std::max<size_t>(Method::kShared, 1)];
    for (size_t i = 0; i < Method::kShared; ++i) shared[i] = Input(call, x_input() + 1 + i);
    work.routes = method_.ReadRoutes(shared);
    work.tokens = x.size / work.in;
    if (work.routes.count == 0 || work.tokens % work.routes.count != 0) {
      Refuse("x has %zu tokens for %zu rows", work.tokens, work.routes.count);
    }
    method_.Prepare(work.modules, x, call, outputs_, work.routes);
    if (form_ == Form::kPacked) return Columns(call, work);
    for (size_t m = 0; m < count_; ++m) {
      work.targets[m] = Output(call, m, work.tokens);
      const size_t width = work.targets[m].width, out = work.modules[m].out;
      if (width != out) Refuse("y has %zu features; the adapter has %zu", width, out);
    }
  }

  // The targets of packed modules: columns of one output.
  void Columns(const Call& call, Work& work) const {
    const Target all = Output(call, 0, work.tokens);
    const Tensor columns = Input(call, columns_input());
    const int64_t* bounds = columns.table("columns", 1);
    if (columns.size != 2 * count_) Refuse("columns has %zu entries for %zu modules", columns.size, count_);
    for (size_t m = 0, end = 0; m < count_; ++m) {
      const int64_t begin = bounds[2 * m], stop = bounds[2 * m + 1];
      if (begin < static_cast<int64_t>(end) || stop < begin || stop > static_cast<int64_t>(all.width)) {
        Refuse("columns are not ascending ranges of the %zu features of y", all.width);
      }
      end = static_cast<size_t>(stop);
      const size_t width = end - static_cast<size_t>(begin), out = work.modules[m].out;
      if (width != out) Refuse("columns has %zu features; the adapter has %zu", width, out);
      work.targets[m] = all;
      work.targets[m].column = static_cast<size_t>(begin);
      work.targets[m].first = m == 0;
    }
  }

  Target Output(const Call& call, size_t index, size_t tokens) const {
    const Tensor y = Input(call, index);
    float* to = call.Output<float>(index, y.dims.data(), y.rank);
    const float* from = y.floats("y");
    if (tokens == 0 ? y.size != 0 : y.size % tokens != 0 || y.last() != y.size / tokens) {
      Refuse("y has %zu numbers for %zu tokens of x", y.size, tokens);
    }
    return {from, to, y.last(), 0, true, Bias(call, index, y.last())};
  }

  Weights Bias(const Call& call, size_t index, size_t width) const {
    if (biases_ == 0) return {nullptr, false, 0};
    const Tensor bias = Input(call, outputs_ + index);
    if (bias.size != width) Refuse("bias has %zu numbers for %zu features", bias.size, width);
    return bias.weights("bias", 1);
  }

  void Run(const Call& call, const Work& work) const {
    const Tiles tiles(work.routes.rows, work.routes.count, work.tokens / work.routes.count);
    size_t cost = 0, scratch = 0;
    for (const Module& module : work.modules) {
      cost += method_.Cost(module, work.in);
      scratch = std::max(scratch, method_.Scratch(module));
    }
    std::atomic<bool> out_of_memory{false};
    // Module after module, so that one module's weights stay near. Modules that share rows of y take turns at a tile.
    const bool turns = form_ == Form::kPacked;
    const auto compute = [&](size_t index) noexcept {
      Buffer buffer(scratch);
      if (buffer.data() == nullptr) {
        out_of_memory = true;
        return;
      }
      const size_t first = index / tiles.count(), last = turns ? count_ : first + 1;
      for (size_t m = first; m < last; ++m) ComputeTile(work, m, tiles, index % tiles.count(), buffer.data());
    };
    const size_t items = tiles.count() * (turns ? 1 : count_);
    if (work.tokens * cost < kWorthAThread) {
      for (size_t index = 0; index < items; ++index) compute(index);
    } else {
      call.ForEach(items, compute);
    }
    if (out_of_memory) throw std::bad_alloc();
  }

  void ComputeTile(const Work& work, size_t m, const Tiles& tiles, size_t index, float* scratch) const noexcept {
    const Tiles::Tokens tokens = tiles.at(index);
    const Target& target = work.targets[m];
    Tile tile;
    tile.count = tokens.count;
    tile.next_y = index + 1 < tiles.count() ? kTile * target.width : 0;
    for (size_t t = 0; t < tokens.count; ++t) {
      tile.x[t] = work.x + tokens.index[t] * work.in;
      tile.y[t] = target.to + tokens.index[t] * target.width;
    }
    if (target.first) Begin(target, tokens, tile);
    for (size_t t = 0; t < tokens.count; ++t) tile.y[t] += target.column;
    method_.Apply(work.modules[m], m, work.routes, tokens.row, work.in, tile, scratch);
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
  const size_t biases_;
  std::vector<std::optional<Tensor>> constants_;  // of the inputs
  std::vector<Module> modules_;                   // none: their inputs are not all constant
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
