// The readers of libeptx on bytes that somebody else chose.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace eptx::fuzz {

enum class Target { kManifest, kModel, kConfig, kRequest, kProof };
constexpr int kTargets = 5;

// Gives bytes to a reader. A manifest is parsed. A model is scanned and checked against the manifest of `SetManifest`.
// A request is made from the bytes and checked against it. A proof is read without a look at its digest. Ends the process where a reader accepts what it must refuse,
// or fails without a printable line and a documented status.
void Read(Target target, std::string_view bytes);

// The manifest that models and requests are checked against.
void SetManifest(std::string_view text);

}  // namespace eptx::fuzz
