// Random choices. A seed gives the same choices on every machine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <random>

namespace eptx::graph_fuzz {

using Random = std::mt19937_64;

inline size_t Place(Random& random, size_t end) { return static_cast<size_t>(random() % end); }

inline int64_t Below(Random& random, int64_t end) {
  return static_cast<int64_t>(random() % static_cast<uint64_t>(end));
}
inline int64_t Within(Random& random, int64_t low, int64_t high) {
  const uint64_t count = static_cast<uint64_t>(high) - static_cast<uint64_t>(low) + 1;
  return static_cast<int64_t>(static_cast<uint64_t>(low) + (count == 0 ? random() : random() % count));
}
inline bool Once(Random& random, int64_t in) { return Below(random, in) == 0; }

template <class T>
T Pick(Random& random, std::initializer_list<T> from) {
  return from.begin()[Below(random, static_cast<int64_t>(from.size()))];
}

// Sizes whose products overflow 64 bits; some fit into memory.
inline int64_t Large(Random& random) {
  if (Once(random, 2)) return int64_t{1} << Within(random, 20, 22);
  return Pick(random, {int64_t{1} << 31, int64_t{1} << 32, int64_t{1} << 48, int64_t{1} << 59, int64_t{1} << 60,
                       int64_t{1} << 61, int64_t{1} << 62, INT64_MAX});
}

inline int64_t Odd(Random& random) {
  return Pick<int64_t>(random, {0, 0, 1, 2, 3, 5, 8, 17, 65, 1000, -1, INT64_MAX, INT64_MIN, int64_t{1} << 61});
}

}  // namespace eptx::graph_fuzz
