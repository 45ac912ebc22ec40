// A bundle's model that runs batches: as it is shipped, or with its inside visible.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "readers/bundle/bundle.h"
#include "readers/proof/proof.h"
#include "session/environment.h"
#include "session/load.h"
#include "validate/array.h"
#include "validate/decode_loop.h"
#include "validate/graph.h"

namespace eptx::core {

using Arrays = std::map<std::string, Array>;

// What a model gave for one batch.
struct Observation {
  Arrays outputs;
  Arrays modules;              // only of a model whose inside is visible
  std::vector<Arrays> routes;  // of every call, each module's choice: experts [rows, n] or groups [rows]
};

// How the models of a bundle are opened.
struct Opener {
  const Environment& environment;
  const Bundle& bundle;
  const Options& options;
  const Kernels& kernels;
};

class BundleModel {
 public:
  // The bundle exactly as it is shipped.
  static BundleModel Shipped(const Opener& opener);
  // The same, except that no activation is rounded to 8 bits.
  static BundleModel WithFloatActivations(const Opener& opener, const Proof& proof);
  // The copy that shows its inside.
  static BundleModel Visible(const Opener& opener, const Proof& proof);

  // Throws EPTX_BAD_INPUT where the bundle lacks a task of the batch, or the model does not run.
  Observation Run(const ProvedBatch& batch) const;

 private:
  BundleModel(const Manifest& manifest, Graph model, std::unique_ptr<Graph> encoder, const Proof* visible)
      : manifest_(manifest), model_(std::move(model)), encoder_(std::move(encoder)), visible_(visible) {}

  const Manifest& manifest_;
  Graph model_;
  std::unique_ptr<Graph> encoder_;
  const Proof* visible_;  // null: the inside is not visible
};

}  // namespace eptx::core
