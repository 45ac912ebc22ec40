// What a model gave, in the shape of what the reference gives.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "validate/array.h"

namespace eptx::core {

struct Fitted {
  Array same;  // of the shape that is wanted
  Array more;  // what it has more, which should be zero
};

// An output. Logits end in zeros where another task has more labels. None if the shapes do not fit.
std::optional<Fitted> FitOutput(const Array& found, const std::vector<int64_t>& shape);

// A module's value: a graph may have rows and positions in one axis, slots apart, or one row for all.
std::optional<Fitted> FitModule(Array found, const std::vector<int64_t>& shape);

}  // namespace eptx::core
