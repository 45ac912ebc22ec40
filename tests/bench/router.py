"""examples/router against what services do today: a session with a merged copy of the base for each classifier.

    python -m tests.bench.router [--pairs N] [--threads N]

The merged models are made by PEFT (``merge_and_unload``) and run in ONNX Runtime alone. Memory is that of a process of
its own: how far its resident memory grows from before the models are opened until a batch has run. Latency is
interleaved in one process: medians of paired ratios, and quartiles. Answers are compared first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from eptx import Session
from eptx.exporter.bases import load_transformers
from eptx.runtime.machine import machine
from eptx.runtime.ort.sessions import session_options
from examples.router.router import CLASSIFIERS, HERE, bundle_at
from tests.support.minilm import minilm

Feeds = dict[str, np.ndarray]
#: (requests at once, tokens of each).
SHAPES = ((1, 24), (8, 24), (1, 96))
_WARM_UP = 5

#: Opens the models in a fresh process, runs a batch, and prints how far memory has grown, of the process and its own.
_CHILD = """
import sys
import numpy as np
import onnxruntime
from eptx import Session

def resident(key):
    return sum(int(line.split()[1]) * 1024 for line in open('/proc/self/smaps_rollup') if line.startswith(key))

before = [resident(key) for key in ('Rss:', 'Private_Dirty:')]
feeds = {name: np.full((8, 24), value) for name, value in
         (('input_ids', 1012), ('attention_mask', 1), ('token_type_ids', 0))}
opened = []
for path in sys.argv[2:]:
    if path.endswith('.onnx'):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(sys.argv[1])
        opened.append(onnxruntime.InferenceSession(path, options, ['CPUExecutionProvider']))
        opened[-1].run(None, {one.name: feeds[one.name] for one in opened[-1].get_inputs()})
    else:
        opened.append(Session(path, threads=int(sys.argv[1]), provider='cpu'))
        opened[-1].run(feeds, task=opened[-1].bundle.manifest.tasks[0].name)
print(*[resident(key) - was for key, was in zip(('Rss:', 'Private_Dirty:'), before)])
"""


def write_copies(folder: Path) -> dict[str, Path]:
    """The base with each classifier merged into it, as .onnx files."""
    labels = json.loads((HERE / "labels.json").read_text(encoding="utf-8"))
    files = {}
    for name in CLASSIFIERS:
        files[name] = folder / f"{name}.onnx"
        if files[name].exists():
            continue
        base = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=len(labels[name]))
        model: Any = PeftModel.from_pretrained(base, str(HERE / "classifiers" / name)).merge_and_unload()
        model.save_pretrained(folder / name)
        ir.save(load_transformers(folder / name).model, files[name])
    return files


def memory(paths: list[Path], threads: int) -> tuple[float, float]:
    """Megabytes: all that is resident, and what no file backs."""
    command = [sys.executable, "-c", _CHILD, str(threads), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    whole, own = (int(number) / 1e6 for number in done.stdout.split())
    return whole, own


def feeds_of(requests: int, tokens: int) -> Feeds:
    ids = np.random.default_rng(0).integers(1000, 2000, (requests, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


class Both:
    """The copies and the bundle in one process."""

    def __init__(self, copies: dict[str, Path], bundle: Path, threads: int) -> None:
        # idle threads of one session would otherwise spin beside the next one's
        entries = {"session.force_spinning_stop": "1"}
        self.copies = {
            name: ort.InferenceSession(path, session_options(threads, entries=entries), ["CPUExecutionProvider"])
            for name, path in copies.items()
        }
        self.bundle = Session(bundle, threads=threads, provider="cpu")

    def ask_copies(self, feeds: Feeds) -> dict[str, np.ndarray]:
        found = {}
        for name, session in self.copies.items():
            found[name] = session.run(None, {one.name: feeds[one.name] for one in session.get_inputs()})[0]
        return found

    def ask_bundle(self, feeds: Feeds) -> np.ndarray:
        """Rows of all tasks in one run."""
        tasks = [*CLASSIFIERS]
        rows = {name: np.concatenate([array] * len(tasks)) for name, array in feeds.items()}
        logits: np.ndarray = self.bundle.run(rows, task=np.repeat(tasks, len(feeds["input_ids"])).tolist())["logits"]
        return logits.reshape(len(tasks), -1, logits.shape[1])

    def compare(self) -> float:
        """The largest difference of a logit."""
        feeds = feeds_of(8, 24)
        copies, bundle = self.ask_copies(feeds), self.ask_bundle(feeds)
        return max(
            float(np.abs(own[:, : copies[name].shape[1]] - copies[name]).max())
            for name, own in zip(CLASSIFIERS, bundle, strict=True)
        )

    def ratio(self, requests: int, tokens: int, pairs: int) -> list[float]:
        """Quartiles of the bundle's time over that of the copies."""
        feeds, ratios = feeds_of(requests, tokens), []
        for pair in range(_WARM_UP + pairs):
            taken = {}
            for ask in (self.ask_copies, self.ask_bundle)[:: 1 if pair % 2 else -1]:
                start = time.perf_counter()
                ask(feeds)  # type: ignore[operator]
                taken[ask.__name__] = time.perf_counter() - start
            ratios.append(taken["ask_bundle"] / taken["ask_copies"])
        found: list[float] = np.quantile(ratios[_WARM_UP:], [0.25, 0.5, 0.75]).tolist()
        return found


def main() -> None:
    """Prints sizes, memory and latency."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/router"))
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    copies, bundle = write_copies(given.out), bundle_at(given.out / "bundle")
    print(f"{machine()}, {given.threads} threads, {len(CLASSIFIERS)} copies")
    size = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
    print(
        f"files: copies {sum(path.stat().st_size for path in copies.values()) / 1e6:.0f} MB, bundle {size / 1e6:.0f} MB"
    )
    for name, paths in (("copies", [*copies.values()]), ("bundle", [bundle])):
        whole, own = memory(paths, given.threads)
        print(f"memory, {name}: {whole:.0f} MB resident, of which {own:.0f} MB are no file's", flush=True)
    both = Both(copies, bundle, given.threads)
    print(f"largest difference of a logit: {both.compare():.1e}", flush=True)
    for shape in SHAPES:
        low, median, high = both.ratio(*shape, given.pairs)
        print(f"latency, {shape[0]}x{shape[1]}: {median:.2f} ({low:.2f}-{high:.2f}) of the copies'", flush=True)


if __name__ == "__main__":
    main()
