// Runs a bundle's model on one batch: in one call, or, for a generator, on the prompt and then token by token.
//
// A generator gets its rows padded on the right, whichever side the batch is padded on; its outputs are put back where
// the batch has the tokens. The cache goes from call to call, and so does what the model chose for the prompt: a row's
// task and its route.
#pragma once

#include <string>
#include <vector>

#include "readers/bundle/manifest.h"
#include "readers/proof/proof.h"
#include "validate/array.h"
#include "validate/graph.h"

namespace eptx::core {

class DecodeLoop {
 public:
  // Both must outlive it. Throws where the bundle lacks a task of the batch.
  DecodeLoop(const Manifest& manifest, const ProvedBatch& batch);

  // `encoder`: null where there is none.
  void Run(const Graph& model, const Graph* encoder);

  const std::vector<Values>& calls() const { return calls_; }  // the outputs of every call, without the cache
  const Values& encoded() const { return encoded_; }           // the encoder's

  // A value of all calls, its positions where the batch has them, or of the first call, if it has no positions; with
  // `columns` some of its features. Of a generator: [rows, positions, ...], with all behind them in one axis.
  Array Joined(const std::string& name, const Columns* columns = nullptr) const;

 private:
  using Numbers = std::vector<int64_t>;

  void ReadTasks();
  void Encode(const Graph& encoder, Values& state);
  void AddInitialState(Values& state) const;
  Values Feeds(size_t start, size_t stop) const;
  void Choose(const Values& values, size_t start, size_t stop);
  Numbers LeftAligned(const ProvedInput& input) const;
  size_t Shift(size_t row) const;  // how much padding stands before a row

  const Manifest& manifest_;
  const ProvedBatch& batch_;
  Values given_;
  size_t rows_, prompt_ = 0, length_ = 0;
  Numbers tokens_, mask_;  // [rows, length], prompts padded on the right
  std::vector<Values> calls_;
  Values encoded_;
};

// The value of a name; throws where the model has none.
OrtValue* Find(const Values& values, const std::string& name);

}  // namespace eptx::core
