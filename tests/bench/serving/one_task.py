"""`eptx serve` whose runs hold rows of one task only, to compare with: ``python one_task.py serve BUNDLE``.

It is what a server does that has a model, or an adapter to be switched, for each task: a queue for each of them.
"""

from __future__ import annotations

from collections.abc import Hashable

from eptx.cli import main
from eptx.manifest.names import TASK_ID
from eptx.runtime.serving.batching.collate import Arrays, Collator

_batch_key = Collator.batch_key


def _key_and_tasks(self: Collator, arrays: Arrays) -> Hashable | None:
    kind = _batch_key(self, arrays)
    return None if kind is None else (kind, arrays[TASK_ID].tobytes())


if __name__ == "__main__":
    Collator.batch_key = _key_and_tasks  # type: ignore[method-assign]
    main()
