"""The error of what GenAI's builder does not build as transformers computes it."""

from __future__ import annotations

from eptx.errors import NotSupportedError


class NotBuiltError(NotSupportedError):
    """GenAI's builder does not make this model, or not as transformers computes it; transformers' exporter may."""
