// A bundle, opened and ready to answer requests from many threads at once.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "readers/bundle/bundle.h"
#include "readers/request/feeds.h"
#include "readers/request/tasks.h"
#include "session/description.h"
#include "session/environment.h"
#include "session/kernels.h"
#include "session/load.h"
#include "session/ort.h"

namespace eptx::core {

class Session {
 public:
  Session(std::shared_ptr<const Environment> environment, const std::string& path, const Options& options);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Manifest& manifest() const { return bundle_.manifest(); }
  const Description& description() const { return description_; }
  const std::string& info() const { return info_; }
  const Limits& limits() const { return limits_; }
  const TaskChooser& tasks() const { return tasks_; }

  // A tensor of ONNX Runtime over somebody else's memory.
  Owned<OrtValue> Wrap(const TensorView& tensor) const;

  // Runs the model on inputs in the manifest's order. `names` and `outputs` have the same length. ONNX Runtime
  // allocates outputs that are null.
  void Run(const std::vector<Owned<OrtValue>>& inputs, const std::vector<const char*>& names,
           std::vector<Owned<OrtValue>>& outputs) const;

  const std::vector<const char*>& output_names() const { return output_names_; }

  const Operators& operators() const { return bundle_.operators(); }

 private:
  void Load(const Options& options);
  Owned<OrtRunOptions> RunOptionsFor(const std::vector<Owned<OrtValue>>& inputs) const;
  std::string Info() const;

  std::shared_ptr<const Environment> environment_;
  Bundle bundle_;
  Limits limits_;
  TaskChooser tasks_;
  Description description_;
  ArenaShare share_;
  std::vector<const char*> input_names_, output_names_;
  Owned<OrtMemoryInfo> memory_;
  bool gives_back_;  // whether a large batch's memory goes back to the system at its end
  Kernels kernels_;  // outlives the model that uses them
  Owned<OrtSession> model_;
  std::string info_;
};

// Checks that the model has the inputs and outputs of eptx.json, as requests are checked against eptx.json.
void CheckSignature(const OrtSession& model, const Manifest& manifest);

}  // namespace eptx::core
