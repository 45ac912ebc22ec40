"""The JSON Schema of eptx.json, ready to check manifests."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs

import eptx

SCHEMA = jsonschema_rs.Draft202012Validator(
    json.loads((Path(eptx.__file__).parent / "eptx.schema.json").read_text(encoding="utf-8"))
)
