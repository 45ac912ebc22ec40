"""Base models as ONNX graphs, and where an adapter's modules are in them."""

from __future__ import annotations

from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.loaders.decoder import load_decoder
from eptx.exporter.bases.loaders.genai import BuilderPrecision, is_decoder, is_genai, load_genai
from eptx.exporter.bases.loaders.genai_config import genai_config
from eptx.exporter.bases.loaders.onnx_file import load_onnx
from eptx.exporter.bases.loaders.transformers import load_transformers
from eptx.exporter.bases.loaders.two_graphs.load import load_encoder_decoder
from eptx.exporter.bases.products.locate import locate
from eptx.exporter.bases.products.site import Site

__all__ = [
    "BaseGraph",
    "BuilderPrecision",
    "Site",
    "genai_config",
    "is_decoder",
    "is_genai",
    "load_decoder",
    "load_encoder_decoder",
    "load_genai",
    "load_onnx",
    "load_transformers",
    "locate",
]
