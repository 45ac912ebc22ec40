"""What the clients of a served bundle ask: GLUE rows of seven tasks, evenly, one row in each request."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.minilm import EXAMPLE

MODEL = "minilm"
#: Words of a question or a search as users type them; a row of 8 tokens with the two that BERT adds.
_SHORT = 6


@dataclass(frozen=True)
class Row:
    """A text, or a pair of texts, and its task."""

    task: str
    texts: tuple[str, ...]

    def request(self) -> dict[str, Any]:
        """The body of the request that asks for it."""
        names = ("text", "text_pair")
        return {
            "inputs": [
                {"name": name, "datatype": "BYTES", "shape": [1], "data": [text]}
                for name, text in zip(names, self.texts, strict=False)
            ],
            "parameters": {"task": self.task},
            "outputs": [{"name": "label"}, {"name": "logits"}],
        }


def glue() -> list[Row]:
    """The demo's rows as they are, 16 of each task, the tasks in turn."""
    by_task: Mapping[str, list[Row]] = defaultdict(list)
    for line in (EXAMPLE / "samples.jsonl").read_text().splitlines():
        row = json.loads(line)
        texts = (row["text"], row["text_pair"]) if "text_pair" in row else (row["text"],)
        by_task[row["task"]].append(Row(row["task"], texts))
    return list(itertools.chain.from_iterable(zip(*by_task.values(), strict=True)))


def short() -> list[Row]:
    """The first words of the same rows, as single texts: as many tokens as a search or a chat's question has."""
    return [Row(row.task, (" ".join(row.texts[0].split()[:_SHORT]),)) for row in glue()]


def encoded(body: Mapping[str, Any], model: str = MODEL) -> bytes:
    """A request as it goes over the wire."""
    data = json.dumps(body).encode()
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def requests(rows: Sequence[Row]) -> list[bytes]:
    """The rows' requests as they go over the wire."""
    return [encoded(row.request()) for row in rows]
