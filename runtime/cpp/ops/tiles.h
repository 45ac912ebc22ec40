// Chooses the tokens that are computed together: rows of one route, cut into tiles.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "ops/simd.h"

namespace eptx::ops {

// The tokens of a batch [rows, length], sorted by the route of their row. Tokens of a tile share a route, so a route is
// looked up once for a tile, also where every row is a single token.
class Tiles {
 public:
  // `routes` has one entry a row; equal entries share tiles.
  Tiles(const int64_t* routes, size_t rows, size_t length) : length_(length) {
    if (std::all_of(routes, routes + rows, [&](int64_t route) { return route == *routes; })) {
      count_ = (rows * length + kTile - 1) / kTile;
      only_ = {0, rows * length, 0};
      return;  // nothing to sort, as always with one row, and no memory to ask for
    }
    rows_.resize(rows);
    std::iota(rows_.begin(), rows_.end(), size_t{0});
    std::stable_sort(rows_.begin(), rows_.end(), [&](size_t a, size_t b) { return routes[a] < routes[b]; });
    for (size_t first = 0; first < rows;) {
      size_t last = first + 1;
      while (last < rows && routes[rows_[last]] == routes[rows_[first]]) ++last;
      groups_.push_back({first, (last - first) * length, count_});
      count_ += (groups_.back().tokens + kTile - 1) / kTile;
      first = last;
    }
  }

  size_t count() const { return count_; }

  struct Tokens {
    size_t row;  // the first token's row, which names the route
    size_t index[kTile];
    size_t count;
  };

  Tokens at(size_t tile) const {
    const Group& group = group_of(tile);
    const size_t begin = (tile - group.first_tile) * kTile;
    Tokens tokens{row(group.first_row), {}, std::min(kTile, group.tokens - begin)};
    for (size_t t = 0; t < tokens.count; ++t) {
      const size_t token = begin + t;
      tokens.index[t] = row(group.first_row + token / length_) * length_ + token % length_;
    }
    return tokens;
  }

 private:
  struct Group {
    size_t first_row;  // in rows_
    size_t tokens;
    size_t first_tile;
  };

  size_t row(size_t sorted) const { return rows_.empty() ? sorted : rows_[sorted]; }

  const Group& group_of(size_t tile) const {
    if (groups_.empty()) return only_;
    const auto after = [](size_t t, const Group& group) { return t < group.first_tile; };
    return *(std::upper_bound(groups_.begin(), groups_.end(), tile, after) - 1);
  }

  size_t length_;
  std::vector<size_t> rows_;  // sorted; empty where the order stays
  std::vector<Group> groups_;
  Group only_{};  // where there are no groups
  size_t count_ = 0;
};

}  // namespace eptx::ops
