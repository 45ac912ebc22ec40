// The readers of libeptx on bytes that somebody else chose.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace eptx::fuzz {

enum class Target { kManifest, kModel, kConfig, kRequest };
constexpr int kTargets = 4;

// Reads the bytes as a target. A manifest is parsed; a model is scanned and checked against the manifest of
// `SetManifest`; a request is made of the bytes and checked against it. Ends the process where a reader lets something
// through that it must not, or fails with anything but one printable line and a documented status.
void Read(Target target, std::string_view bytes);

// The manifest that models and requests are checked against.
void SetManifest(std::string_view text);

}  // namespace eptx::fuzz
