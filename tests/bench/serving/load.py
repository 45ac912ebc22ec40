"""What batches of mixed tasks gain, against one row a run and one task a run.

Three servers of the same bundle stand ready and take turns. Saturation: the same burst of requests for each, again and
again; the numbers are medians of the ratios of neighbours. Then an open loop at a rising rate, the same arrivals for
each, for what the clients see. The client runs on the same processors, so all have a little less than the machine.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eptx.runtime import Session
from eptx.runtime.serving.batching.collate import Arrays, Collator, row_length
from tests.bench.serving.client import OpenLoop
from tests.bench.serving.workload import MODEL, Row, requests
from tests.runtime.serving.servers import EPTX, Server, serving

MIXED, ONE_TASK, ONE_ROW = "mixed", "one task", "one row"
_ONE_TASK_SERVER = (str(Path(__file__).with_name("one_task.py")),)
#: Requests of a burst, and how many bursts each server gets.
_BURST, _ROUNDS = 196, 12
#: Rates, over what one row a run can serve at most.
_RATES = (0.5, 0.7, 0.9, 1.1, 1.3)
_ALONE = 5


@dataclass
class Step:
    """One server at one rate.

    Attributes:
        served: requests answered per second while they were sent.
        p50, p99: of the time from when a request was due to its answer, in seconds.
        refused: requests that were refused.
        rows: rows of a run on average.
        client: the share of one processor that the client took.
    """

    served: float
    p50: float
    p99: float
    refused: int
    rows: float
    client: float


def measure(bundle: Path, rows: Sequence[Row], folder: Path, *, threads: int, seconds: float) -> dict[str, Any]:
    """Ratios at saturation, and every step of the open loop, of one workload."""
    wire = requests(rows)
    alone = _alone(bundle, rows, threads)
    print(
        f"  the session alone, rows of like length together: 32 rows a run / one: {alone[MIXED] / alone[ONE_ROW]:.2f}"
    )
    with ExitStack() as stack:

        def start(*arguments: str, program: Sequence[str] = EPTX) -> Server:
            options = ["--threads", str(threads), "--queue", "4096", *arguments]
            return stack.enter_context(serving(folder, f"{MODEL}={bundle}", *options, program=program))

        servers = {
            MIXED: start(),
            ONE_TASK: start(program=_ONE_TASK_SERVER),
            ONE_ROW: start("--max-batch", "1"),
        }
        return {"session": alone, **asyncio.run(_measured(servers, wire, seconds))}


async def _measured(servers: Mapping[str, Server], wire: Sequence[bytes], seconds: float) -> dict[str, Any]:
    loops = {name: OpenLoop(server.port, wire) for name, server in servers.items()}
    saturated, most = await _saturated(servers, loops)
    steps = [await _step(servers, loops, rate * most, seconds, seed) for seed, rate in enumerate(_RATES)]
    return {"saturated": saturated, "steps": [{name: vars(step) for name, step in at.items()} for at in steps]}


async def _saturated(
    servers: Mapping[str, Server], loops: Mapping[str, OpenLoop]
) -> tuple[dict[str, dict[str, float]], float]:
    """Name -> how often its requests a second go into those of mixed runs (median and quartiles), and what belongs to
    it; and the requests a second of one row a run."""
    times: dict[str, list[float]] = {name: [] for name in loops}
    before = {}
    for round_ in range(_ROUNDS + 1):
        for name in list(loops) if round_ % 2 else list(reversed(loops)):
            times[name].append(await loops[name].burst(_BURST))
        if not round_:  # a warm-up
            before = {name: await asyncio.to_thread(_counts, server) for name, server in servers.items()}
    found = {}
    for name, server in servers.items():
        ratios = [own / mixed for own, mixed in zip(times[name][1:], times[MIXED][1:], strict=True)]
        after = await asyncio.to_thread(_counts, server)
        counts = {key: after[key] - before[name][key] for key in after}
        low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        found[name] = {
            "ratio": float(median),
            "low": float(low),
            "high": float(high),
            "served": _BURST / statistics.median(times[name][1:]),
            "rows": counts["eptx_batch_rows_sum"] / counts["eptx_batch_rows_count"],
            "overhead": sum(times[name][1:]) / counts["eptx_session_seconds_sum"] - 1,
        }
        print(
            f"  saturated, mixed / {name:<9} {median:5.2f} ({low:.2f}-{high:.2f})  "
            f"{found[name]['served']:5.0f} served/s, {found[name]['rows']:4.1f} rows a run, "
            f"time outside of the session / in it {found[name]['overhead']:.3f}",
            flush=True,
        )
    return found, found[ONE_ROW]["served"]


async def _step(
    servers: Mapping[str, Server], loops: Mapping[str, OpenLoop], rate: float, seconds: float, seed: int
) -> dict[str, Step]:
    steps = {name: await _one(servers[name], loops[name], rate, seconds, seed) for name in servers}
    cells = (f"{name} {1e3 * step.p50:6.1f} {1e3 * step.p99:7.1f} ({step.rows:4.1f})" for name, step in steps.items())
    print(f"  {rate:4.0f}/s: p50, p99 in ms (rows a run): " + "   ".join(cells), flush=True)
    return steps


async def _one(server: Server, loop: OpenLoop, rate: float, seconds: float, seed: int) -> Step:
    before = await asyncio.to_thread(_counts, server)
    answers = await loop.run(rate, seconds, seed)
    after = await asyncio.to_thread(_counts, server)
    p50, p99 = np.quantile(answers.latencies, [0.5, 0.99])
    runs = after["eptx_batch_rows_count"] - before["eptx_batch_rows_count"]
    return Step(
        served=answers.in_time / answers.seconds,
        p50=float(p50),
        p99=float(p99),
        refused=sum(answers.refused.values()),
        rows=(after["eptx_batch_rows_sum"] - before["eptx_batch_rows_sum"]) / runs,
        client=answers.busy,
    )


def _counts(server: Server) -> dict[str, float]:
    names = ("eptx_batch_rows_sum", "eptx_batch_rows_count", "eptx_session_seconds_sum")
    return {name: server.metric(name) for name in names}


def _alone(bundle: Path, rows: Sequence[Row], threads: int) -> dict[str, float]:
    """Rows per second of a session without a server: what batching can gain here at all."""
    session = Session(bundle, "cpu", threads=threads)
    collator = Collator(session.manifest)
    asked = [({**session.tokenizer([row.texts if row.texts[1:] else row.texts[0]])}, row.task) for row in rows]
    asked.sort(key=lambda one: row_length(one[0]))
    return {name: _rate(session, collator, asked, size) for name, size in ((ONE_ROW, 1), (MIXED, 32))}


def _rate(session: Session, collator: Collator, asked: Sequence[tuple[Arrays, str]], size: int) -> float:
    parts = [asked[i : i + size] for i in range(0, len(asked), size)]
    batches = [(collator.collate([arrays for arrays, _ in part]), [task for _, task in part]) for part in parts]
    times = []
    for _ in range(_ALONE):
        began = time.perf_counter()
        for arrays, tasks in batches:
            session.run(arrays, tasks)
        times.append(time.perf_counter() - began)
    return len(asked) / statistics.median(times[1:])
