"""Every kind of wrong bundle that a validation must see."""

from __future__ import annotations

from tests.exporter.validation.wrong import experts, fields, outputs, quantities, tables, weights

KINDS = (*tables.KINDS, *weights.KINDS, *experts.KINDS, *outputs.KINDS, *fields.KINDS, *quantities.KINDS)
