// Validates a bundle by a proof of it: the verdicts of a validation, without the trained model.
#pragma once

#include <memory>
#include <string>

#include "session/environment.h"
#include "session/load.h"

namespace eptx::core {

class Validation {
 public:
  // Runs the bundle by the functions that it holds for its own operators, and by the kernels where they are linked in.
  // Throws where the bundle or the proof is damaged, or the proof is one of another bundle.
  Validation(const std::shared_ptr<const Environment>& environment, const std::string& bundle, const std::string& proof,
             Options options);

  bool passed() const { return passed_; }
  const std::string& report() const { return report_; }  // JSON

 private:
  bool passed_;
  std::string report_;
};

}  // namespace eptx::core
