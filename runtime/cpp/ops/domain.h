// The domain of eptx's operators, and its version.
#pragma once

#include <cstdint>

namespace eptx {

constexpr char kOperatorDomain[] = "ai.eptx";
constexpr int64_t kOperatorVersion = 1;

}  // namespace eptx
