"""Base models as ONNX graphs, and where an adapter's modules are in them."""

from __future__ import annotations

from eptx.exporter.base.encoder_decoder import is_encoder_decoder, load_encoder_decoder
from eptx.exporter.base.genai import BuilderPrecision, genai_config, is_decoder, is_genai, load_genai
from eptx.exporter.base.graph import BaseGraph
from eptx.exporter.base.locate import locate
from eptx.exporter.base.onnx_file import load_onnx
from eptx.exporter.base.site import Site
from eptx.exporter.base.transformers import load_transformers

__all__ = [
    "BaseGraph",
    "BuilderPrecision",
    "Site",
    "genai_config",
    "is_decoder",
    "is_encoder_decoder",
    "is_genai",
    "load_encoder_decoder",
    "load_genai",
    "load_onnx",
    "load_transformers",
    "locate",
]
