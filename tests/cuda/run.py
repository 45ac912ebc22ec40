"""The half for the machine with a GPU: ``python FOLDER/1/run.py``; `tests.cuda.prepare` has written FOLDER.

Needs eptx, numpy, click, tokenizers and onnxruntime-gpu; no PyTorch, no checkout. Holds every case against its proof
and against what the released code gave, says which nodes the CPU runs, times the adapters over their base with CUDA
graphs on and off, and counts tokens per second. All of it goes into one JSON file too. Exits with 0; with 1 when a
case failed; with 5, saying why, where the provider is not there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import eptx
from eptx.errors import EptxError, NotSupportedError
from eptx.manifest.names import EXPORT_PROVIDERS, LOGITS, PAST, PRESENT, TASK_ID
from eptx.providers import PROVIDERS
from eptx.runtime.ort.choice import why_not
from eptx.runtime.ort.providers import REMEMBER_NODES, execution_providers, operators_by_provider
from eptx.runtime.ort.sessions import bundle_options
from eptx.runtime.timing import paired

HERE = Path(__file__).resolve().parent
TOLERANCE = 2e-5
SHAPES = ((1, 16), (1, 128), (8, 32), (8, 128))
ROWS = (1, 4)
_PROMPT, _NEW = 64, 32
_DTYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "tensor(float16)": np.float16}


class MissingPiecesError(Exception):
    """A folder with a part of the case is not here."""


class Store:
    """The pieces of all folders beside this one."""

    def __init__(self, folder: Path) -> None:
        self._archives = [zipfile.ZipFile(path) for path in sorted(folder.glob("*/pieces.zip"))]
        self._places = {name: archive for archive in self._archives for name in archive.namelist()}

    def unpack(self, files: Mapping[str, Sequence[str]], folder: Path) -> None:
        """Writes a case's files.

        Raises:
            MissingPiecesError: not all of them are here.
        """
        missing = sum(piece not in self._places for pieces in files.values() for piece in pieces)
        if missing:
            raise MissingPiecesError(f"{missing} of its pieces are in a folder that is not here")
        for name, pieces in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for piece in pieces:
                    content = self._places[piece].read(piece)
                    if hashlib.sha256(content).hexdigest() != piece:
                        raise AssertionError(f"{name}: a piece is damaged")
                    file.write(content)


class Device:
    """Sessions of one provider whose values stay on its device."""

    def __init__(self, provider: str, threads: int | None) -> None:
        self.provider, self._threads = provider, threads
        self.name = PROVIDERS[provider].device

    def open(self, bundle: eptx.Bundle, *, graphs: bool = False, remember: bool = False) -> ort.InferenceSession:
        """A session on a bundle, perhaps one that records CUDA graphs, or remembers which provider runs which node."""
        options = bundle_options(bundle, self._threads)
        if remember:
            for key, value in REMEMBER_NODES.items():
                options.add_session_config_entry(key, value)
        providers = execution_providers(self.provider, self._threads)
        if graphs:
            name, settings = providers[0]
            providers[0] = (name, {**settings, "enable_cuda_graph": "1"})
        return ort.InferenceSession(str(bundle.model), options, providers=providers, enable_fallback=0)

    def bound(self, session: ort.InferenceSession, feeds: Mapping[str, np.ndarray]) -> Callable[[], float]:
        """Seconds of one run, with inputs and outputs in the device's memory, always the same places."""
        binding = session.io_binding()
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, self._value(array))
        for output in session.get_outputs():
            binding.bind_output(output.name, self.name)
        if self.name != "cpu":  # a CUDA graph writes where it wrote when it was recorded
            shapes = [array.shape for array in session.run(None, dict(feeds))]
            for output, shape in zip(session.get_outputs(), shapes, strict=True):
                place = ort.OrtValue.ortvalue_from_shape_and_type(shape, _DTYPES[output.type], self.name, 0)
                binding.bind_ortvalue_output(output.name, place)

        def run() -> float:
            start = time.perf_counter()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return time.perf_counter() - start

        return run

    def decode(self, session: ort.InferenceSession, feeds: Mapping[str, np.ndarray]) -> tuple[float, float]:
        """Seconds of a prompt, and tokens per second behind it; the cache stays on the device, tokens are greedy."""
        inputs = {value.name: value for value in session.get_inputs()}
        rows, length = feeds["input_ids"].shape
        kept = {name: self._value(array) for name, array in feeds.items() if name in inputs and name == TASK_ID}
        cache = {
            name: self._value(np.zeros((rows, value.shape[1], 0, value.shape[3]), _DTYPES[value.type]))
            for name, value in inputs.items()
            if name.startswith(PAST)
        }
        outputs = [value.name for value in session.get_outputs() if value.name.startswith((LOGITS, PRESENT))]
        tokens, total, times = feeds["input_ids"], length, []
        for _ in range(_NEW):
            start = time.perf_counter()
            step = {
                "input_ids": tokens,
                "attention_mask": np.ones((rows, total), np.int64),
                "position_ids": np.broadcast_to(np.arange(total - tokens.shape[1], total), tokens.shape).copy(),
            }
            binding = session.io_binding()
            for name, value in {**{n: self._value(a) for n, a in step.items() if n in inputs}, **kept, **cache}.items():
                binding.bind_ortvalue_input(name, value)
            for name in outputs:
                binding.bind_output(name, "cpu" if name == LOGITS else self.name)
            session.run_with_iobinding(binding)
            found = dict(zip(outputs, binding.get_outputs(), strict=True))
            tokens = found[LOGITS].numpy()[:, -1].argmax(axis=-1)[:, None].astype(np.int64)
            cache = {name: found[name.replace(PAST, PRESENT, 1)] for name in cache}
            total += 1
            times.append(time.perf_counter() - start)
        return times[0], rows / statistics.median(times[1:])

    def _value(self, array: np.ndarray) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.name, 0)


class Run:
    """Runs the cases, and keeps what it saw."""

    def __init__(self, store: Store, device: Device, workspace: Path, pairs: int) -> None:
        self._store, self._device, self._workspace, self._pairs = store, device, workspace, pairs
        self.results: dict[str, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()

    def case(self, case: Mapping[str, Any]) -> None:
        """Checks one case; what it raises is its failure."""
        name, folder = case["name"], self._workspace / case["name"]
        result: dict[str, Any] = {}
        self.results[name] = result
        try:
            self._store.unpack(case["files"], folder)
            if "proof" in case["files"]:
                result["noise_floors"] = self._proved(folder)
                result["released"] = self._released(case, folder)
                result["nodes"] = self._nodes(folder)
                said = f"{result['noise_floors']:.2f} of 10 noise floors"
                said += "" if result["released"] is None else f", {result['released']:.1e} of the released logits"
            else:
                said = "the base alone, to be timed"
        except MissingPiecesError as why:
            self._note(result, name, "not here", str(why))
        except NotSupportedError as why:
            failed = self._device.provider in EXPORT_PROVIDERS
            self._note(result, name, "failed" if failed else "refused", str(why))
        except (AssertionError, EptxError) as why:
            self._note(result, name, "failed", str(why))
        except Exception:  # one broken case must not hide the others
            self._note(result, name, "failed", traceback.format_exc())
        else:
            self._note(result, name, "passed", said)
        for provider, operators in result.get("nodes", {}).items():
            if provider != self._device.provider:
                told = ", ".join(f"{operator} {count}" for operator, count in operators.items())
                print(f"{'':<9} on {provider}: {told}", flush=True)

    def time(self, case: Mapping[str, Any]) -> None:
        """Times one case over its base."""
        name, over = case["name"], case["over"]
        if over is None or any(self.results.get(each, {}).get("verdict") != "passed" for each in (name, over)):
            return
        ours, base = (eptx.read_bundle(self._workspace / each / "bundle", verify=False) for each in (name, over))
        if ours.manifest.generation is None:
            self.results[name]["latency"] = self._latency(ours, base)
        else:
            self.results[name]["decoding"] = self._decoded(ours, base)

    def _note(self, result: dict[str, Any], name: str, verdict: str, why: str) -> None:
        result["verdict"], result["why"] = verdict, why
        self.counts[verdict] += 1
        print(f"{verdict:<9} {name}: {why}", flush=True)

    def _proved(self, folder: Path) -> float:
        """The largest error of all runs, in noise floors."""
        report = eptx.validate_against_proof(folder / "bundle", folder / "proof", [self._device.provider])
        assert report.passed, report.reason
        return max(task.worst[1].ratio for backend in report.providers for task in backend.tasks)

    def _released(self, case: Mapping[str, Any], folder: Path) -> float | None:
        """The largest error of the released code's logits, over the largest of these."""
        if not case["released_tasks"]:
            return None
        arrays = dict(np.load(folder / "released.npz"))
        session = eptx.Session(folder / "bundle", self._device.provider)
        errors = []
        for batch in range(sum(name.endswith("input_ids") for name in arrays)):
            inputs = {key: arrays[f"in{batch}.{key}"] for key in ("input_ids", "attention_mask")}
            kept = inputs["attention_mask"] == 1
            for task in case["released_tasks"]:
                want = arrays[f"out{batch}.logits" if task is None else f"out{batch}.{task}.logits"]
                difference = np.abs(session.run(inputs, task=task)[LOGITS] - want)
                if want.ndim == 3:
                    difference = difference[kept]
                errors.append(float(difference.max() / max(1, np.abs(want).max())))
        assert max(errors) <= TOLERANCE, f"{max(errors):.2g} of the released code's largest logit, not {TOLERANCE}"
        return max(errors)

    def _nodes(self, folder: Path) -> dict[str, dict[str, int]]:
        """Which provider runs how many nodes of which operator."""
        session = self._device.open(eptx.read_bundle(folder / "bundle", verify=False), remember=True)
        found = operators_by_provider(session) or {}
        return {name: dict(operators.most_common()) for name, operators in found.items()}

    def _latency(self, ours: eptx.Bundle, base: eptx.Bundle) -> dict[str, Any]:
        found: dict[str, Any] = {}
        longest = ours.manifest.max_length
        shapes = [shape for shape in SHAPES if longest is None or shape[1] <= longest]
        for graphs in (False, True) if self._device.provider == "cuda" else (False,):
            key = "cuda_graphs" if graphs else "plain"
            try:
                sessions = [self._device.open(bundle, graphs=graphs) for bundle in (ours, base)]
                for rows, length in shapes:
                    runs = [
                        self._device.bound(session, feeds(session, rows, length, bundle))
                        for session, bundle in zip(sessions, (ours, base), strict=True)
                    ]
                    found.setdefault(key, {})[f"{rows}x{length}"] = paired(*runs, self._pairs)
            except Exception as error:  # ONNX Runtime refuses to record a graph with nodes on the CPU
                found[key] = {"why": str(error).partition("\n")[0]}
        return found

    def _decoded(self, ours: eptx.Bundle, base: eptx.Bundle) -> dict[str, Any]:
        found = {}
        sessions = [self._device.open(bundle) for bundle in (ours, base)]
        for rows in ROWS:
            inputs = [feeds(s, rows, _PROMPT, bundle) for s, bundle in zip(sessions, (ours, base), strict=True)]
            pairs = [
                [self._device.decode(session, each) for session, each in zip(sessions, inputs, strict=True)]
                for _ in range(max(2, self._pairs // 5))
            ][1:]
            found[f"{rows} row" if rows == 1 else f"{rows} rows"] = {
                "tokens_per_second": statistics.median(mine[1] for mine, _ in pairs),
                "over_base": statistics.median(mine[1] / other[1] for mine, other in pairs),
                "prompt_over_base": statistics.median(mine[0] / other[0] for mine, other in pairs),
            }
        return found


def feeds(session: ort.InferenceSession, rows: int, length: int, bundle: eptx.Bundle) -> dict[str, np.ndarray]:
    """Random tokens, and the tasks of the bundle in turn."""
    rng, words = np.random.default_rng(0), min(150, bundle.manifest.shared_vocab_size or 150)
    ids = [task.id for task in bundle.manifest.tasks if task.id is not None]
    known = {
        "input_ids": rng.integers(5, words, (rows, length)),
        "attention_mask": np.ones((rows, length), np.int64),
        "token_type_ids": np.zeros((rows, length), np.int64),
        TASK_ID: np.resize(np.array(ids or [0], np.int64), rows),
    }
    return {value.name: known[value.name] for value in session.get_inputs() if value.name in known}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Speed, for people."""
    lines = []
    for name, result in results.items():
        for kind, shapes in result.get("latency", {}).items():
            told = shapes.get("why") or ", ".join(f"{shape} {found['ratio']:.2f}" for shape, found in shapes.items())
            lines.append(f"{name} / base, {kind.replace('_', ' ')}: {told}")
        for rows, found in result.get("decoding", {}).items():
            told = f"{found['tokens_per_second']:.1f} tokens per second, {found['over_base']:.2f} of the base's"
            lines.append(f"{name}, {rows}: {told}; prompt {found['prompt_over_base']:.2f} of the base's time")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", choices=PROVIDERS, default="cuda")
    parser.add_argument("--only", default="", help="a part of the names of the cases to run")
    parser.add_argument("--pairs", type=int, default=20, help="how many pairs of runs a ratio is the median of")
    parser.add_argument("--threads", type=int, help="of an operator; ONNX Runtime's choice if it is not given")
    parser.add_argument("--json", type=Path, default=HERE.parent / "results.json")
    chosen = parser.parse_args(arguments)
    why = why_not(chosen.provider)
    if why is not None:
        print(f"error: provider {chosen.provider}: {why}", file=sys.stderr)
        return NotSupportedError.exit_code
    told = json.loads((HERE / "cases.json").read_text())
    cases = [case for case in told["cases"] if chosen.only in case["name"]]
    workspace = Path(tempfile.mkdtemp(prefix="eptx-"))
    try:
        run = Run(Store(HERE.parent), Device(chosen.provider, chosen.threads), workspace, chosen.pairs)
        print(f"{chosen.provider}, graphs fused for {told['fused_for']}, ONNX Runtime {ort.__version__}")
        for case in cases:
            run.case(case)
        for case in cases:
            run.time(case)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    print(table(run.results))
    record = {"provider": chosen.provider, "onnxruntime": ort.__version__, "cases": run.results}
    chosen.json.write_text(json.dumps(record, indent=1))
    print(", ".join(f"{run.counts[verdict]} {verdict}" for verdict in ("passed", "failed", "refused", "not here")))
    return 1 if run.counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
