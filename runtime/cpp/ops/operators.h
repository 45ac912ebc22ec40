// The operators of domain ai.eptx, version 1. What they compute is said by exporter/ops, where each is also an ONNX
// function of standard operators.
#pragma once

#include <vector>

#include "ops/kernel.h"

namespace eptx::ops {

void AddPyramidDelta(std::vector<Signature>& signatures);
void AddRoutedPyramidDelta(std::vector<Signature>& signatures);
void AddPyramidRouter(std::vector<Signature>& signatures);
void AddTuckerDelta(std::vector<Signature>& signatures);
void AddTuckerRouter(std::vector<Signature>& signatures);
void AddLowRankDelta(std::vector<Signature>& signatures);

}  // namespace eptx::ops
