#include "readers/proof/places.h"

#include <algorithm>
#include <numeric>

namespace eptx::core {

std::optional<size_t> Places::Find(size_t row, size_t position) const {
  if (position >= positions) return {};
  const size_t wanted = row * positions + position;
  const auto found = std::lower_bound(index.begin(), index.end(), wanted);
  if (found == index.end() || *found != wanted) return {};
  return static_cast<size_t>(found - index.begin());
}

std::optional<size_t> CountOf(const std::vector<int64_t>& shape) {
  constexpr size_t kMost = SIZE_MAX / sizeof(double) / 2;
  size_t count = 1;
  bool fits = true, empty = false;
  for (const int64_t size : shape) {
    if (size < 0) return {};
    empty = empty || size == 0;
    fits = fits && (size == 0 || count <= kMost / static_cast<size_t>(size));
    if (fits && size != 0) count *= static_cast<size_t>(size);
  }
  if (empty) return 0;
  if (!fits) return {};
  return count;
}

std::optional<Places> PlacesOf(const std::vector<int64_t>& shape, const std::optional<Mask>& mask, size_t most) {
  if (shape.empty() || !CountOf(shape)) return {};
  Places places;
  const auto rows = static_cast<size_t>(shape[0]);
  places.has_positions = shape.size() >= 3;
  if (places.has_positions) places.positions = static_cast<size_t>(shape[1]);
  for (size_t axis = places.has_positions ? 2 : 1; axis < shape.size(); ++axis) {
    places.width *= static_cast<size_t>(shape[axis]);
  }
  if (places.has_positions && mask && mask->length == places.positions) {
    if (mask->rows != rows) return {};
    for (size_t i = 0; i < mask->kept.size(); ++i) {
      if (mask->kept[i]) places.index.push_back(i);
    }
    if (places.index.size() > most) return {};
    return places;
  }
  if (places.positions != 0 && rows > most / places.positions) return {};
  places.index.resize(rows * places.positions);
  std::iota(places.index.begin(), places.index.end(), size_t{0});
  return places;
}

}  // namespace eptx::core
