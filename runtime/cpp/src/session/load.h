// Loads a model of a bundle into ONNX Runtime.
#pragma once

#include <cstdint>
#include <string>

#include "readers/bundle/bundle.h"
#include "session/environment.h"
#include "session/kernels.h"
#include "session/ort.h"

namespace eptx::core {

struct Options {
  int32_t threads = 0;
  bool verify = true;
  eptx_kernels kernels = EPTX_KERNELS_AUTO;
  bool arena = true;
};

// The options, checked.
const Options& CheckedOptions(const Options& options, const Environment& environment);

// The bytes of all files, of which weights are the most.
uint64_t WeightBytes(const Manifest& manifest);

// A file of the bundle, or bytes in its place, whose weights are in the bundle's folder.
struct ModelSource {
  std::string path;
  const std::string* bytes;
};

Owned<OrtSession> LoadModel(const Environment& environment, const Bundle& bundle, const Options& wanted,
                            const Kernels& kernels, const ModelSource& source);

}  // namespace eptx::core
