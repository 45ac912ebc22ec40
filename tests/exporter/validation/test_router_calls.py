"""Bases that call TuckA's router more than once in a forward: every mode holds, and what is changed does not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file

from eptx.errors import UsageError
from eptx.exporter import ExportOptions, Route, export_bundle
from eptx.exporter.base import load_transformers
from eptx.exporter.validation import ValidateOptions, validate_bundle
from tests.exporter.base.conftest import build
from tests.exporter.validation.adapters import linear_shapes, write_tucka
from tests.exporter.validation.wrong.edits import edited
from tests.trained import trained_model

GOLDEN = Path(__file__).parents[2] / "golden"
