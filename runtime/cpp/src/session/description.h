// A bundle's tasks, inputs and outputs as structures of eptx.h. They point into the manifest.
#pragma once

#include <vector>

#include "eptx.h"
#include "readers/bundle/manifest.h"

namespace eptx::core {

class Description {
 public:
  explicit Description(const Manifest& manifest);  // which must outlive it
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;

  std::vector<eptx_task> tasks;
  std::vector<eptx_tensor_info> inputs, outputs;

 private:
  void Describe(const std::vector<TensorSpec>& specs, std::vector<eptx_tensor_info>& infos);

  std::vector<std::vector<const char*>> label_names_, dimension_names_;
  std::vector<std::vector<int64_t>> shapes_;
};

}  // namespace eptx::core
