// The operators of domain ai.eptx, version 1. exporter/ops defines what they compute: there each is an ONNX function of
// standard operators.
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
void AddTokenMixtureDelta(std::vector<Signature>& signatures);
void AddPooledMixtureDelta(std::vector<Signature>& signatures);
void AddTopExperts(std::vector<Signature>& signatures);
void AddChosenExperts(std::vector<Signature>& signatures);

}  // namespace eptx::ops
