// What the inputs and outputs of a decoder's graph are for.
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
  std::vector<Pair> chosen;  // what the model may choose where -1 is given, and what it used
};

// Throws where the bundle generates no text, or not in a way that this libeptx knows.
Decoder FindDecoder(const Manifest& manifest, const Operators& operators);

}  // namespace eptx::core
