// Runs a node as a model in ONNX Runtime, with the native kernels or with the functions that they replace.
#pragma once

#include <onnxruntime_c_api.h>

#include <optional>
#include <string>
#include <vector>

#include "graph_case.h"

namespace eptx::graph_fuzz {

// The bytes of a model of one node. `functions`: the bytes of a model's functions, appended as they are: the bytes of
// protocol-buffer messages may be joined.
std::string ModelBytes(const Node& node, const Case& drawn, const std::string& functions);

// An output of a run.
struct Output {
  std::vector<int64_t> dims;
  std::vector<float> floats;      // either floats or integers
  std::vector<int64_t> integers;
};

// The outputs of a session, or why there are none.
struct Answer {
  std::optional<std::string> refused;
  std::vector<Output> outputs;
};

class Session {
 public:
  // With kernels there is no arena: each tensor has its own memory, and a sanitizer sees its end. With functions all
  // memory comes from the environment's arena, whose limit a model cannot pass.
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
