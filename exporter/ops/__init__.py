"""The operators of domain ``ai.eptx``, version 1: model-local ONNX functions whose bodies are standard operators.

A bundle that holds them loads in any ONNX Runtime, in ONNX's reference evaluator and in a browser, because
the body travels in the file. A library of native kernels may take their place; it must compute the same.

Every operator that reads activations accepts any rank: the leading axis of ``x`` is a multiple of the rows
``N`` that its route has, and is reshaped to ``[N, -1, features]``. So a route of one row serves a whole batch.

An adapter's own numbers may be stored in another float type than ``x`` has: the bodies cast them, a kernel reads them
as they are. A router's own are stored in float32, in which the bodies score, whatever ``x`` has. Operators of several
modules at once are made from the single ones (`grouped`, `packed`), and so are those that also add the base's biases
(`biased`).
"""

from eptx.exporter.ops._grouped import MAX_GROUP, biased, grouped, module_inputs, packed, packed_columns, single
from eptx.exporter.ops.chosen_experts import ChosenExpertsDelta, ChosenExpertsMean, ChosenExpertsSum
from eptx.exporter.ops.domain import add_functions
from eptx.exporter.ops.low_rank_delta import LowRankDelta
from eptx.exporter.ops.pooled_mixture_delta import PooledMixtureDelta
from eptx.exporter.ops.pyramid_delta import PyramidDelta
from eptx.exporter.ops.pyramid_router import PyramidRouter
from eptx.exporter.ops.routed_pyramid_delta import RoutedPyramidDelta
from eptx.exporter.ops.token_mixture_delta import TokenMixtureDelta
from eptx.exporter.ops.top_experts import TopExperts
from eptx.exporter.ops.tucker_delta import TuckerDelta
from eptx.exporter.ops.tucker_router import TuckerRouter

__all__ = [
    "MAX_GROUP",
    "ChosenExpertsDelta",
    "ChosenExpertsMean",
    "ChosenExpertsSum",
    "LowRankDelta",
    "PooledMixtureDelta",
    "PyramidDelta",
    "PyramidRouter",
    "RoutedPyramidDelta",
    "TokenMixtureDelta",
    "TopExperts",
    "TuckerDelta",
    "TuckerRouter",
    "add_functions",
    "biased",
    "grouped",
    "module_inputs",
    "packed",
    "packed_columns",
    "single",
]
