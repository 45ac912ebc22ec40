"""Every check of an execution provider, in one call: ``python tests/providers/run_all.py --provider NAME``.

Exports graphs that are fused for the provider (for the CPU, where eptx has no fusions for it), validates every golden
case in every mode on it, and compares sessions on it with the released code's logits. Prints ``N passed, N failed, N
refused``: what a provider does not load is refused, and on CPU and CUDA it fails. Exits with 0, with 1 when a check
failed, and with 5, saying why, where the provider is not there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # last: the package folders at the root are parts of eptx and must not hide it

import onnx_ir as ir

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import EptxError, NotSupportedError
from eptx.exporter import ExportOptions, Route
from eptx.exporter.bases import load_transformers
from eptx.exporter.validation import ValidateOptions, report_text, validate_bundle
from eptx.manifest.names import EXPORT_PROVIDERS
from eptx.providers import CPU, PROVIDERS
from eptx.runtime import Session
from eptx.runtime.ort.choice import why_not
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept, write_lora
from tests.support.minilm import EPT, minilm

GOLDEN = ROOT / "tests" / "golden"
CASES = ("ept_bert48", "ept_llama64", "tucka_bert48", "tucka_llama64")
TOLERANCE = 2e-5


@dataclass
class Run:
    """What the checks share, and what became of them."""

    provider: str
    folder: Path
    passed: int = 0
    failed: int = 0
    refused: int = 0
    _graphs: dict[tuple[Path, bool], Path] = field(default_factory=dict)

    @property
    def fused_for(self) -> Any:
        """The provider that graphs are fused for."""
        return self.provider if self.provider in EXPORT_PROVIDERS else CPU

    def check(self, name: str, run: Callable[[], None]) -> None:
        """Runs one check; what it raises is its failure."""
        try:
            run()
        except NotSupportedError as error:
            if self.provider in EXPORT_PROVIDERS:
                self._note(name, str(error))
                return
            self.refused += 1
            print(f"no    {name}: {error}", flush=True)
        except (AssertionError, EptxError) as error:
            self._note(name, str(error) or type(error).__name__)
        except Exception:  # one broken check must not hide the others
            self._note(name, traceback.format_exc())
        else:
            self.passed += 1
            print(f"ok    {name}", flush=True)

    def _note(self, name: str, why: str) -> None:
        self.failed += 1
        print(f"FAIL  {name}: {why}", flush=True)

    def graph(self, base: Path, headless: bool = False) -> Path:
        """The base's graph, fused for the provider, traced once."""
        key = (base, headless)
        if key not in self._graphs:
            path = self.folder / f"graph{len(self._graphs)}" / "base.onnx"
            path.parent.mkdir()
            model = load_transformers(base, provider=self.fused_for, headless=headless).model
            ir.save(model, path, external_data="base.onnx.data")
            self._graphs[key] = path
        return self._graphs[key]

    def export(self, base: Path, adapters: Sequence[Path], *, headless: bool = False, **options: Any) -> Bundle:
        """A bundle for the provider."""
        settings = ExportOptions(provider=self.fused_for, base_onnx=self.graph(base, headless), **options)
        return export_bundle(base, adapters, self.folder / "bundle", settings)

    def validate(self, bundle: Bundle, **options: Any) -> None:
        """Holds a bundle against PyTorch, on the provider."""
        report = validate_bundle(bundle.path, ValidateOptions(providers=[self.provider], **options))
        assert report.passed, f"{report.reason}\n{report_text(report)}"

    def session(self, bundle: Bundle) -> Session:
        """A session that really is on the provider."""
        session = Session(bundle, self.provider)
        assert session.provider == self.provider, session.provider
        return session


def golden_checks(run: Run, case: str) -> None:
    """One golden case in every mode."""
    folder = GOLDEN / case
    base, adapter = folder / "base", folder / "adapter"
    settings = json.loads((folder / "case.json").read_text())
    arrays = dict(np.load(folder / "golden.npz"))
    for name, options in _modes(case, settings, arrays):
        for precision in ("fp32", "fp16"):

            def validated(options: dict[str, Any] = options, precision: str = precision) -> None:
                run.validate(run.export(base, [adapter], precision=precision, **options))

            run.check(f"{case} {name} {precision}: validate", validated)
    run.check(f"{case}: a session gives the released logits", lambda: _released(run, case, settings, arrays))


def _modes(case: str, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, dict[str, Any]]]:
    if case.startswith("ept"):
        top_k = settings["top_k"]
        yield "static", {"mode": "static", "task": "task3", "top_k": top_k}
        yield "conditioned", {"mode": "conditioned", "top_k": top_k}
        yield "dynamic", {"mode": "dynamic", "top_k": top_k}
        return
    weights = tuple(map(float, arrays["out0.weights"].reshape(-1)))
    routes = {None: Route(int(arrays["out0.group"].reshape(-1)[0]), weights)}
    yield "static", {"mode": "static", "routes": routes}
    yield "conditioned", {"mode": "conditioned", "routes": routes}
    yield "dynamic, batch", {"mode": "dynamic", "routing": "batch"}
    yield "dynamic, row", {"mode": "dynamic", "routing": "row"}


def _released(run: Run, case: str, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    folder = GOLDEN / case
    options = {"top_k": settings["top_k"]} if "top_k" in settings else {}
    session = run.session(run.export(folder / "base", [folder / "adapter"], mode="dynamic", **options))
    for batch in range(sum(name.endswith("input_ids") for name in arrays)):
        inputs = {key: arrays[f"in{batch}.{key}"] for key in ("input_ids", "attention_mask")}
        for task in range(8) if options else (None,):
            want = arrays[f"out{batch}.logits" if task is None else f"out{batch}.task{task}.logits"]
            got = session.run(inputs, task=None if task is None else f"task{task}")["logits"]
            error = float(np.abs(got - want).max())
            assert error <= TOLERANCE * max(1.0, float(np.abs(want).max())), f"batch {batch}, task {task}: {error:.3g}"


def other_checks(run: Run) -> None:
    """What the goldens do not have: LoRA, task heads, an export straight from the folder."""
    base = GOLDEN / "ept_bert48" / "base"
    shapes = linear_shapes(base, ("query", "value", "dense"))
    shapes = {name: shape for name, shape in shapes.items() if "pooler" not in name}
    loras = [write_lora(run.folder / f"lora{seed}", shapes, seed=seed) for seed in (1, 2)]
    heads = add_heads(write_ept(run.folder / "heads", shapes, seed=3), {"a": 2, "b": 5, "c": 1}, 48)
    run.check("lora conditioned: validate", lambda: run.validate(run.export(base, loras, mode="conditioned")))
    run.check("lora static: validate", lambda: run.validate(run.export(base, loras[:1], mode="static")))

    def with_heads() -> None:
        bundle = run.export(base, [heads], headless=True, mode="dynamic", top_k=2)
        run.validate(bundle)
        rows = run.session(bundle).run({"input_ids": [[5, 6, 7], [5, 6, 7]]}, task=["b", "c"]).logits
        assert [len(row) for row in rows] == [5, 1]

    def from_folder() -> None:
        options = ExportOptions(mode="conditioned", top_k=2, provider=run.fused_for)
        adapter = GOLDEN / "ept_bert48" / "adapter"
        run.validate(export_bundle(base, [adapter], run.folder / "direct", options))

    run.check("task heads: validate and run", with_heads)
    run.check("export from the transformers folder: validate", from_folder)


def minilm_checks(run: Run) -> None:
    """The demo's adapter on real weights."""
    kinds: dict[str, dict[str, Any]] = {
        "static": {"mode": "static", "task": "sst2"},
        "conditioned": {"mode": "conditioned"},
        "dynamic": {"mode": "dynamic"},
    }
    for mode, options in kinds.items():

        def validated(options: dict[str, Any] = options) -> None:
            run.validate(run.export(minilm(), [EPT], headless=True, **options))

        run.check(f"MiniLM {mode}: validate", validated)
    if run.fused_for == CPU:  # int8 is for graphs of CPUs
        for mode in ("static", "conditioned"):
            run.check(f"MiniLM {mode} int8: validate", partial(validated, kinds[mode] | {"precision": "int8"}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the checks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", choices=PROVIDERS, default="cuda")
    parser.add_argument("--only", nargs="*", choices=[*CASES, "other", "minilm"], default=[*CASES, "other", "minilm"])
    chosen = parser.parse_args(arguments)
    why = why_not(chosen.provider)
    if why is not None:
        print(f"error: provider {chosen.provider}: {why}", file=sys.stderr)
        return NotSupportedError.exit_code
    with tempfile.TemporaryDirectory() as folder:
        run = Run(chosen.provider, Path(folder))
        for name in chosen.only:
            if name in CASES:
                golden_checks(run, name)
            else:
                {"other": other_checks, "minilm": minilm_checks}[name](run)
    print(f"{run.passed} passed, {run.failed} failed, {run.refused} refused")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
