// What all runs on one backend gave.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "readers/proof/proof.h"
#include "validate/answers.h"

namespace eptx::core {

struct Results {
  struct Rows {
    int64_t compared = 0, aside = 0;
  };

  Spreads error;          // bundle less float64: of modules, and of the outputs of the bundle as it is shipped
  Spreads visible_error;  // of the outputs of the copy whose inside is visible
  Spreads rounded_error;  // of outputs with activations of 8 bits, of a bundle that is shipped so
  Answers answers, rounded_answers;
  std::map<std::string, Rows> rows;  // of each task
  // (task, module or output) -> what is wrong with it, where that is no distance: another route, or another shape
  std::map<std::pair<std::string, std::string>, std::string> complaints;
  std::map<std::string, std::string> ties;    // task -> the module whose router chose otherwise at a tie
  std::map<std::string, std::string> broken;  // task -> why the model does not run
};

}  // namespace eptx::core
