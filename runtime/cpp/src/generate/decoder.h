// The roles of a decoder's inputs and outputs.
#pragma once

#include <cstddef>
#include <vector>

#include "readers/bundle/bundle.h"
#include "readers/bundle/manifest.h"

namespace eptx::core {

// Indices of the manifest's inputs and outputs.
struct Decoder {
  struct Pair {
    size_t input, output;
  };
  size_t ids = 0, mask = 0, logits = 0;
  std::vector<Pair> cache;   // past and present
  std::vector<Pair> chosen;  // an input of -1 lets the model choose; the output says what it used
};

// Throws where the bundle does not generate text, or not in a way that this libeptx knows.
Decoder FindDecoder(const Manifest& manifest, const Operators& operators);

}  // namespace eptx::core
