"""What a run of a language model takes."""

from __future__ import annotations

from dataclasses import dataclass

#: Tokens of a prompt, and decoding steps after it.
PROMPT, NEW = 64, 32


@dataclass(frozen=True)
class Times:
    """Seconds of the prefill, and of one decoding step."""

    prefill: float
    step: float
