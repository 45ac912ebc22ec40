// What a model gave, as numbers of one type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "session/ort.h"

namespace eptx::core {

struct Array {
  std::vector<int64_t> shape;
  std::vector<double> data;

  size_t rank() const { return shape.size(); }
  int64_t last() const { return shape.empty() ? 1 : shape.back(); }
};

// Features of a value's last dimension, the last exclusive.
using Columns = std::pair<int64_t, int64_t>;

// The numbers of a tensor, or of some of its features.
Array ReadArray(OrtValue* tensor, const Columns* columns = nullptr);

// The index of the largest number; of the first that is none, if there is one.
size_t LargestOf(const double* numbers, size_t count);

}  // namespace eptx::core
