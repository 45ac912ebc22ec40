"""What batches of mixed tasks gain: an open loop at a rising rate, against one row a run and one task a run.

Three servers of the same bundle stand ready; at each rate they take turns, under the same arrivals. The client runs on
the same processors, so all of them have a little less than the machine.
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
from eptx.runtime._tokenizer import Tokenizer
from eptx.runtime.serving.merging import Arrays, Merger, row_length
from tests.bench.serving.client import Answers, OpenLoop
from tests.bench.serving.workload import MODEL, Row, requests
from tests.runtime.serving.servers import EPTX, Server, serving

MIXED, ONE_TASK, ONE_ROW = "mixed", "one task", "one row"
_ONE_TASK_SERVER = (str(Path(__file__).with_name("one_task.py")),)
#: The first rate, over what one row at a time could give, and the steps after it.
_FIRST, _STEP = 0.4, 1.19
#: A server is past its best when more than so many seconds' requests are late; it is not asked for more.
_LATE = 1.0
#: Within this the 99th percentile counts as good, in seconds.
BOUND = 0.1
_WARM_UP = 2.0
_ROUNDS = 5


@dataclass
class Step:
    """One server at one rate.

    Attributes:
        rate: requests sent per second.
        served: requests answered per second while they were sent.
        p50, p99: of the time from when a request was due to its answer, in seconds.
        refused: requests that were refused.
        rows: rows of a run on average.
        overhead: time of the model's thread outside of the session, over that in the session; at saturation it has no
            other reason than the server.
        client: the share of one processor that the client took.
    """

    rate: float
    served: float
    p50: float
    p99: float
    refused: int
    rows: float
    overhead: float
    client: float


def measure(bundle: Path, rows: Sequence[Row], folder: Path, *, threads: int, seconds: float) -> dict[str, Any]:
    """Ratios, and every step, of one workload."""
    wire = requests(rows)
    alone = _alone(bundle, rows, threads)
    print(
        f"  the session alone, rows of the same length together: {alone[ONE_ROW]:.0f} rows/s one by one, "
        f"{alone[MIXED]:.0f} in batches of 32 ({alone[MIXED] / alone[ONE_ROW]:.2f})"
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
        steps = asyncio.run(_climb(servers, wire, _FIRST * alone[ONE_ROW], seconds))
    return {"session": alone, "steps": {n: [vars(s) for s in of] for n, of in steps.items()}, **_ratios(steps)}


async def _climb(
    servers: Mapping[str, Server], wire: Sequence[bytes], rate: float, seconds: float
) -> dict[str, list[Step]]:
    loops = {name: OpenLoop(server.port, wire) for name, server in servers.items()}
    for loop in loops.values():
        await loop.run(rate, _WARM_UP, seed=0)
    steps: dict[str, list[Step]] = {name: [] for name in servers}
    climbing, seed = list(servers), 1
    while climbing:
        for name in climbing:
            steps[name].append(await _step(servers[name], loops[name], rate, seconds, seed))
            _show(name, steps[name][-1])
        climbing = [name for name in climbing if steps[name][-1].p99 < _LATE]
        climbing.reverse()
        rate, seed = rate * _STEP, seed + 1
    return steps


async def _step(server: Server, loop: OpenLoop, rate: float, seconds: float, seed: int) -> Step:
    before, began = await asyncio.to_thread(_counts, server), time.perf_counter()
    answers = await loop.run(rate, seconds, seed)
    took = time.perf_counter() - began
    after = await asyncio.to_thread(_counts, server)
    counts = {name: after[name] - before[name] for name in after}
    return _summary(answers, rate, counts, took)


def _summary(answers: Answers, rate: float, counts: Mapping[str, float], took: float) -> Step:
    p50, p99 = np.quantile(answers.latencies, [0.5, 0.99])
    return Step(
        rate=rate,
        served=answers.in_time / answers.seconds,
        p50=float(p50),
        p99=float(p99),
        refused=sum(answers.refused.values()),
        rows=counts["eptx_batch_rows_sum"] / counts["eptx_batch_rows_count"],
        overhead=took / counts["eptx_session_seconds_sum"] - 1,
        client=answers.busy,
    )


def _counts(server: Server) -> dict[str, float]:
    names = ("eptx_batch_rows_sum", "eptx_batch_rows_count", "eptx_session_seconds_sum")
    return {name: server.metric(name) for name in names}


def _ratios(steps: Mapping[str, Sequence[Step]]) -> dict[str, float]:
    """What mixed runs serve over what the others do: the most, and the most within the bound."""
    most = {name: max(step.served for step in of) for name, of in steps.items()}
    good = {
        name: max((s.served for s in of if s.p99 <= BOUND and not s.refused), default=0.0) for name, of in steps.items()
    }
    last = max(steps[MIXED], key=lambda step: step.served)
    ratios = {"overhead": last.overhead}
    print("  mixed over        one task    one row")
    for label, values in (("most", most), ("p99 <= 0.1 s", good)):
        found = {name: values[MIXED] / values[name] if values[name] else float("inf") for name in (ONE_TASK, ONE_ROW)}
        print(f"  {label:<16} {found[ONE_TASK]:8.2f}   {found[ONE_ROW]:8.2f}   ({values[MIXED]:.0f} requests/s mixed)")
        ratios |= {f"{label} / {name}": ratio for name, ratio in found.items()}
    print(f"  server's overhead at saturation: {last.overhead:.3f} of the time in the session")
    return ratios


def _show(name: str, step: Step) -> None:
    print(
        f"  {name:<9} {step.rate:6.0f}/s: {step.served:6.0f} served, "
        f"p50 {1e3 * step.p50:7.1f} ms, p99 {1e3 * step.p99:7.1f} ms, "
        f"{step.rows:4.1f} rows a run, {step.overhead:5.2f} overhead, client {step.client:.2f}"
        + (f", {step.refused} refused" if step.refused else ""),
        flush=True,
    )


def _alone(bundle: Path, rows: Sequence[Row], threads: int) -> dict[str, float]:
    """Rows per second of a session without a server: what batching can gain here at all."""
    session = Session(bundle, "cpu", threads=threads)
    tokenize, merger = Tokenizer(session.bundle), Merger(session.manifest)
    asked = [({**tokenize([row.texts if row.texts[1:] else row.texts[0]])}, row.task) for row in rows]
    asked.sort(key=lambda one: row_length(one[0]))
    return {name: _rate(session, merger, asked, size) for name, size in ((ONE_ROW, 1), (MIXED, 32))}


def _rate(session: Session, merger: Merger, asked: Sequence[tuple[Arrays, str]], size: int) -> float:
    parts = [asked[i : i + size] for i in range(0, len(asked), size)]
    batches = [(merger.merge([arrays for arrays, _ in part]), [task for _, task in part]) for part in parts]
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for arrays, tasks in batches:
            session.run(arrays, tasks)
        times.append(time.perf_counter() - began)
    return len(asked) / statistics.median(times[1:])
