// A node as a model in ONNX Runtime, with the native kernels and with the functions that stand for them.
#pragma once

#include <onnxruntime_c_api.h>

#include <optional>
#include <string>
#include <vector>

#include "graph_case.h"

namespace eptx::graph_fuzz {

// The bytes of a model of one node. `functions`: those of a model, which follow it: a message's bytes may be joined.
std::string ModelBytes(const Node& node, const Case& drawn, const std::string& functions);

// An output as it came.
struct Output {
  std::vector<int64_t> dims;
  std::vector<float> floats;      // one of the two
  std::vector<int64_t> integers;
};

// What a session says: its outputs, or why there are none.
struct Answer {
  std::optional<std::string> refused;
  std::vector<Output> outputs;
};

class Session {
 public:
  // Kernels: nothing is computed in an arena, so that each tensor is memory of its own, which a sanitizer knows the end
  // of. Functions: all is computed in the environment's arena, whose limit a model cannot pass.
  Session(const Node& node, const std::string& model, bool kernels);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const std::optional<std::string>& refused() const { return refused_; }
  Answer Run(const Case& drawn) const;

 private:
  const Node& node_;
  OrtCustomOpDomain* domain_ = nullptr;
  OrtSession* session_ = nullptr;
  std::optional<std::string> refused_;
};

}  // namespace eptx::graph_fuzz
