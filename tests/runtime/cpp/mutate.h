// Damages a file at random, or along its structure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

namespace eptx::fuzz {

using Random = std::mt19937_64;

// Flips, cuts, repeats, moves and inserts bytes.
std::string MutateBytes(const std::string& original, Random& random);

// Changes one value of a JSON text to a value of any type, or changes a key.
std::string MutateJson(const std::string& original, Random& random);

// Changes the tag, length or content of one field of a protocol-buffer message, at any depth.
std::string MutateMessage(const std::string& original, Random& random);

}  // namespace eptx::fuzz
