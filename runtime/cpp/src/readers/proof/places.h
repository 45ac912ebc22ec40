// The places of a value: its rows, or the positions of its rows that are no padding. See docs/proof.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace eptx::core {

// What of a batch's positions is no padding.
struct Mask {
  size_t rows = 0, length = 0;
  std::vector<bool> kept;  // [rows, length]
};

struct Places {
  bool has_positions = false;  // else every row is a place
  size_t positions = 1;        // of a row of the whole value
  size_t width = 1;            // numbers of a place
  std::vector<size_t> index;   // of each place, among all positions of all rows
  size_t count() const { return index.size(); }
  size_t row(size_t place) const { return index[place] / positions; }

  // The place of a position; none at padding and outside.
  std::optional<size_t> Find(size_t row, size_t position) const;
};

// How many numbers a value of this shape has; none where that is no size in memory.
std::optional<size_t> CountOf(const std::vector<int64_t>& shape);

// The places of a value of this shape, whose first dimension is the rows. None where there are more than `most`, or the
// mask is of other rows.
std::optional<Places> PlacesOf(const std::vector<int64_t>& shape, const std::optional<Mask>& mask, size_t most);

}  // namespace eptx::core
