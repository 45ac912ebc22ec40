// Logits as answers: how often the bundle's are the reference's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "readers/bundle/manifest.h"
#include "readers/proof/proof.h"
#include "validate/bundle_model.h"

namespace eptx::core {

// A token that the bundle chooses otherwise than the reference.
struct Disagreement {
  std::string batch;
  size_t row, token;
  int64_t reference, bundle;
  double margin;  // by how much the reference prefers its own; infinite where the proof does not say
};

// How often the bundle chooses the token that the reference chooses, after the same tokens.
struct Greedy {
  int64_t tokens = 0, equal = 0;
  std::optional<Disagreement> first;
};

class Answers {
 public:
  // Adds the compared rows of one batch.
  void Add(const ProvedBatch& batch, const Arrays& outputs, const Manifest& manifest);

  std::optional<double> Agreement(const std::string& task) const;  // none without logits
  std::optional<Greedy> GreedyOf(const std::string& task) const;   // none of a model that does not generate

 private:
  struct Count {
    int64_t answers = 0, equal = 0;
  };

  void AddAnswer(const std::string& task, const Manifest& manifest, const double* found, size_t width,
                 const Sample& exact, size_t place);
  void AddTokens(const ProvedBatch& batch, const Array& found, const Sample& exact, size_t row);

  std::map<std::string, Count> counts_;
  std::map<std::string, Greedy> greedy_;
};

}  // namespace eptx::core
