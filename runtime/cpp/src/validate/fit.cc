#include "validate/fit.h"

#include <algorithm>

#include "readers/proof/places.h"

namespace eptx::core {
namespace {

// Some features of an array, with zeros past its end.
Array Slice(const Array& array, size_t first, size_t width) {
  Array slice{array.shape, {}};
  slice.shape.back() = static_cast<int64_t>(width);
  const auto all = static_cast<size_t>(array.last());
  const size_t places = all == 0 ? 0 : array.data.size() / all;
  slice.data.assign(places * width, 0.0);
  for (size_t place = 0; place < places; ++place) {
    for (size_t i = 0; i < width && first + i < all; ++i) {
      slice.data[place * width + i] = array.data[place * all + first + i];
    }
  }
  return slice;
}

}  // namespace

std::optional<Fitted> FitOutput(const Array& found, const std::vector<int64_t>& shape) {
  if (found.shape.size() != shape.size() || !std::equal(shape.begin(), shape.end() - 1, found.shape.begin())) return {};
  const auto width = static_cast<size_t>(shape.back()), all = static_cast<size_t>(found.last());
  if (all == 0 && width != 0) {
    const auto count = CountOf(shape);
    if (!count) return {};
    return Fitted{{shape, std::vector<double>(*count)}, {found.shape, {}}};
  }
  return Fitted{Slice(found, 0, width), Slice(found, width, all > width ? all - width : 0)};
}

std::optional<Fitted> FitModule(Array found, const std::vector<int64_t>& shape) {
  if (found.shape.empty()) return {};
  const auto count = CountOf(shape);
  if (found.rank() == shape.size() && found.shape[0] == 1 && shape[0] > 1 && count &&
      found.data.size() * static_cast<size_t>(shape[0]) == *count) {
    const std::vector<double> row = found.data;
    for (int64_t i = 1; i < shape[0]; ++i) found.data.insert(found.data.end(), row.begin(), row.end());
  }
  if (!count || found.data.size() != *count || shape.back() % std::max<int64_t>(1, found.last()) != 0) return {};
  Array none{shape, {}};
  none.shape.back() = 0;
  return Fitted{{shape, std::move(found.data)}, std::move(none)};
}

}  // namespace eptx::core
