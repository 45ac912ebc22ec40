"""Many requests, good and bad, while bundles are replaced: every answer is compared, and memory is watched."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eptx.manifest.names import MANIFEST_FILE
from eptx.runtime import Session
from tests.bench.serving.client import Line
from tests.bench.serving.workload import MODEL, encoded, requests, short
from tests.runtime.serving.servers import Server, serving, wait_for

#: A token that the model has not; the bundle is told not to know, so that ONNX Runtime fails in the middle of a run.
_POISON = 1 << 20
#: Of all requests: those that fail their run, and those whose client leaves.
_POISONED, _LEAVING = 0.02, 0.02
#: More clients than the queue holds rows, so that some are refused.
_CLIENTS, _QUEUE = 48, 40
_SAMPLES, _REPLACEMENTS = 20, 5
#: Of the requests as many again come first: buffers grow to what the largest batches take, which are rare.
_WARM_UP = 0.3
#: Results differ by rounding from those of a batch of one.
_TOLERANCE = 1e-4


@dataclass
class Soak:
    """Clients that ask without a pause, and what came back.

    Attributes:
        port: of the server.
        cases: requests, and the logits that a session answers to each.
        counts: of answers by what they were.
        left: requests that are still to be sent.
    """

    port: int
    cases: Sequence[tuple[bytes, np.ndarray]]
    counts: Counter[str] = field(default_factory=Counter)
    left: int = 0

    async def ask(self, requests: int) -> None:
        """Sends so many requests, and compares the answers."""
        self.left = requests
        await asyncio.gather(*(self._client(random.Random(seed)) for seed in range(_CLIENTS)))

    async def _client(self, chance: random.Random) -> None:
        line = await Line.to(self.port)
        while self.left > 0:
            self.left -= 1
            request, logits = chance.choice(self.cases)
            kind = chance.random()
            if kind < _LEAVING:
                line.ask(request)
                await asyncio.sleep(chance.random() * 0.05)
                line.leave()
                self.counts["left"] += 1
                line = await Line.to(self.port)
            elif kind < _LEAVING + _POISONED:
                self.counts[_judged(await line.ask(_poisoned(chance)), 400)] += 1
            else:
                self.counts[_judged(await line.ask(request), 200, logits)] += 1


def measure(bundle: Path, folder: Path, count: int, *, threads: int) -> dict[str, Any]:
    """Counts of answers by what they were, and the server's memory on the way, in bytes."""
    served = _careless(bundle, folder / "soak")
    cases = _cases(Session(served, "cpu", threads=threads))
    print(
        f"\nsoak: {count} requests from {_CLIENTS} clients, {_POISONED:.0%} poisoned, {_LEAVING:.0%} leaving, "
        f"a queue of {_QUEUE} rows; then {_REPLACEMENTS} replacements of the bundle under load"
    )
    with serving(folder, f"{MODEL}={served}", "--threads", str(threads), "--queue", str(_QUEUE)) as server:
        soak = Soak(server.port, cases)
        memory = asyncio.run(_steady(soak, server, count))
        _show(soak.counts)
        drift = memory[-1] / memory[0] - 1
        print(
            f"  resident memory {memory[0] / 1e6:.1f} MB at first, {max(memory) / 1e6:.1f} at most, "
            f"{memory[-1] / 1e6:.1f} at last: {drift:+.4f}"
        )
        steady, soak.counts = dict(soak.counts), Counter()
        asyncio.run(_replaced(soak, server, served))
        _show(soak.counts)
        grown = _resident(server)
        code = server.stop()
        print(f"  replaced {_REPLACEMENTS} times; resident memory {grown / 1e6:.1f} MB; exit code {code}")
    return {"steady": steady, "replaced": dict(soak.counts), "memory": memory, "drift": drift, "exit code": code}


async def _steady(soak: Soak, server: Server, requests: int) -> list[int]:
    part = requests // _SAMPLES
    await soak.ask(int(_WARM_UP * requests))
    _show(soak.counts)
    soak.counts.clear()
    memory = [_resident(server)]
    for _ in range(_SAMPLES):
        await soak.ask(part)
        memory.append(_resident(server))
    return memory


async def _replaced(soak: Soak, server: Server, bundle: Path) -> None:
    asking = asyncio.create_task(soak.ask(1 << 30))
    for done in range(_REPLACEMENTS):
        copy = bundle.with_name("copy")
        await asyncio.to_thread(shutil.copytree, bundle, copy)
        bundle.rename(bundle.with_name("old"))
        copy.rename(bundle)
        await asyncio.to_thread(_wait_for_reloads, server, done + 1)
        await asyncio.to_thread(shutil.rmtree, bundle.with_name("old"))
    soak.left = 0
    await asking


def _wait_for_reloads(server: Server, count: int) -> None:
    wait_for(lambda: server.metric("eptx_reloads_total", result="done") == count, 60)


def _judged(answer: tuple[int, bytes], status: int, logits: np.ndarray | None = None) -> str:
    """What an answer was: as it should be, refused since the queue is full, or wrong."""
    got, body = answer
    if got == 429:
        return "refused"
    if got != status:
        return f"WRONG ({got}, not {status})"
    if logits is None:
        return "poisoned"
    given = next(output["data"] for output in json.loads(body)["outputs"] if output["name"] == "logits")
    return "answered" if np.allclose(given, logits, rtol=0, atol=_TOLERANCE) else "WRONG (other logits)"


def _careless(bundle: Path, target: Path) -> Path:
    """A copy of a bundle that does not say how many tokens there are."""
    shutil.copytree(bundle, target)
    manifest = json.loads((target / MANIFEST_FILE).read_text())
    manifest["vocab_size"] = None
    (target / MANIFEST_FILE).write_text(json.dumps(manifest))
    return target


def _cases(session: Session) -> list[tuple[bytes, np.ndarray]]:
    rows = short()
    return [(r, session.run(row.texts[0], row.task)["logits"][0]) for row, r in zip(rows, requests(rows), strict=True)]


def _poisoned(chance: random.Random) -> bytes:
    length = chance.randint(6, 10)
    ids = [{"name": "input_ids", "datatype": "INT64", "shape": [1, length], "data": [_POISON] * length}]
    return encoded({"inputs": ids, "parameters": {"task": "sst2"}})


def _resident(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def _show(counts: Counter[str]) -> None:
    print("  " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())), flush=True)
