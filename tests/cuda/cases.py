"""What is prepared for a machine with a GPU: methods, modes and precisions, small and on real weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import eptx
from eptx.exporter import ExportOptions, Route
from eptx.exporter.options import Provider
from eptx.providers import CPU
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept, write_lily, write_lora
from tests.support.decoders import write_decoder
from tests.support.minilm import EPT, TUCKA, minilm
from tests.support.smollm2 import EPT as SMOLLM2_EPT
from tests.support.smollm2 import smollm2

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
#: Bytes of one proof, if it can be so small: some fifty of them and MiniLM's weights have to fit in 60 MB.
_SMALL, _LARGE = 100_000, 800_000
_MINILM = "MiniLM base fp16"
_TASKS = tuple(f"task{number}" for number in range(8))
_MOE = ("hydra_lora_bert48", "loramoe_bert48", "mixlora_llama48")


@dataclass(frozen=True)
class Case:
    """One bundle to prepare.

    Attributes:
        name: says method, mode and precision.
        group: "small", "minilm" or "large".
        base, adapter: the folders that it is exported from.
        options: of the export, but the provider.
        released: the released code's inputs and logits for it, and the tasks that they are of (None: of no task).
        proof_bytes: how large its proof may be; None: it has no proof, as its adapter changes nothing.
        over: the case that it is timed against.
    """

    name: str
    group: str
    base: Path
    adapter: Path
    options: ExportOptions
    released: tuple[Path, tuple[str | None, ...]] | None = None
    proof_bytes: int | None = _SMALL
    over: str | None = None


@dataclass(frozen=True)
class Cases:
    """All cases.

    Args:
        workspace: an empty folder for the adapters that are written for them.
        provider: what the graphs are to be fused for, "cpu" or "cuda".
    """

    workspace: Path
    provider: Provider

    def of(self, group: str) -> Iterator[Case]:
        """The cases of a group."""
        for case in self._of(group):
            yield replace(case, options=replace(case.options, provider=self.provider))

    def _of(self, group: str) -> Iterator[Case]:
        if group == "minilm":
            yield from self._minilm()
        elif group == "large":
            yield from self._large()
        else:
            for each in (self._ept(), self._tucka(), self._mixtures(), self._others()):
                for case in each:
                    yield from _in_halves(case)
            yield from self._int4()

    @staticmethod
    def _ept() -> Iterator[Case]:
        for name in ("ept_bert48", "ept_llama64", "ept_t5_ks16"):
            folder = GOLDEN / name
            top_k = json.loads((folder / "case.json").read_text())["top_k"]
            told = (folder / "golden.npz", _TASKS) if name != "ept_t5_ks16" else None
            if name != "ept_t5_ks16":
                yield _golden(name, ExportOptions(mode="static", top_k=top_k, task="task3"))
            for options, released in (
                (ExportOptions(mode="conditioned", top_k=top_k), told),
                (ExportOptions(mode="dynamic", top_k=top_k), told),
            ):
                yield _golden(name, options, released)

    @staticmethod
    def _tucka() -> Iterator[Case]:
        arrays = np.load(GOLDEN / "tucka_bert48" / "golden.npz")
        route = Route(int(arrays["out0.group"]), tuple(map(float, arrays["out0.weights"].reshape(-1))))
        yield _golden("tucka_bert48", ExportOptions(mode="static", routes={None: route}))
        yield _golden("tucka_bert48", ExportOptions(mode="conditioned", routes={None: route}))
        for name in ("tucka_bert48", "tucka_llama64", "tucka_vit_cifar_cls"):
            told = (GOLDEN / name / "golden.npz", (None,)) if name != "tucka_vit_cifar_cls" else None
            yield _golden(name, ExportOptions(mode="dynamic", routing="batch"), told)
            yield _golden(name, ExportOptions(mode="dynamic", routing="row"))

    def _mixtures(self) -> Iterator[Case]:
        """Adapters whose tokens weigh experts, from the files that the released codes saved."""
        for name in _MOE:
            adapter = self.workspace / name
            eptx.convert(GOLDEN / name / "adapter", adapter)
            told = (GOLDEN / name / "golden.npz", (None,)) if name != "loramoe_bert48" else None
            case = _golden(name, ExportOptions(mode="dynamic"), told)
            yield replace(case, adapter=adapter)

    def _others(self) -> Iterator[Case]:
        """What the goldens do not have: LoRA, Lily, task heads."""
        base = GOLDEN / "ept_bert48" / "base"
        shapes = linear_shapes(base, ("query", "value", "dense"))
        shapes = {name: shape for name, shape in shapes.items() if "pooler" not in name}
        lora = write_lora(self.workspace / "lora", shapes, seed=1)
        lily = write_lily(self.workspace / "lily", shapes, seed=1)
        heads = add_heads(write_ept(self.workspace / "heads", shapes, seed=3), {"a": 2, "b": 5, "c": 1}, 48)
        conditioned = ExportOptions(mode="conditioned")
        yield Case("lora conditioned", "small", base, lora, conditioned)
        if self.provider == CPU:  # int8 is for CPUs
            yield Case("lora conditioned int8", "small", base, lora, replace(conditioned, precision="int8"))
        yield Case("lily dynamic row", "small", base, lily, ExportOptions(mode="dynamic", routing="row"))
        yield Case("task heads dynamic", "small", base, heads, ExportOptions(mode="dynamic", top_k=2))

    def _int4(self) -> Iterator[Case]:
        base = write_decoder("llama", self.workspace / "llama", hidden_size=128, intermediate_size=256)
        shapes = linear_shapes(base, ("q_proj", "v_proj", "down_proj"))
        adapter = write_ept(self.workspace / "llama ept", shapes, seed=2)
        for mode in ("conditioned", "dynamic"):
            options = ExportOptions(mode=mode, top_k=2, precision="int4")  # type: ignore[arg-type]
            yield Case(f"llama {mode} int4", "small", base, adapter, options)

    def _minilm(self) -> Iterator[Case]:
        """The demo's EPT adapter on real weights, and the base alone."""
        base = minilm()
        alone = self._alone(_MINILM, "minilm", base, "query", ExportOptions(mode="static", precision="fp16"))
        yield alone
        for mode in ("conditioned", "dynamic"):
            options = ExportOptions(mode=mode, precision="fp16")  # type: ignore[arg-type]
            case = Case(f"MiniLM ept {mode} fp16", "minilm", base, EPT, options)
            yield replace(case, proof_bytes=_LARGE, over=alone.name)

    def _large(self) -> Iterator[Case]:
        """What has no room beside them: TuckA on the same weights, and a language model."""
        options = ExportOptions(mode="dynamic", routing="row", precision="fp16")
        case = Case("MiniLM tucka dynamic row fp16", "large", minilm(), TUCKA, options, proof_bytes=_LARGE)
        yield replace(case, over=_MINILM)
        base, options = smollm2(), ExportOptions(mode="static", precision="int4")
        alone = self._alone("SmolLM2 base int4", "large", base, "q_proj", options)
        yield alone
        case = Case("SmolLM2 ept conditioned int4", "large", base, SMOLLM2_EPT, replace(options, mode="conditioned"))
        yield replace(case, proof_bytes=_LARGE, over=alone.name)

    def _alone(self, name: str, group: str, base: Path, module: str, options: ExportOptions) -> Case:
        """The base as a bundle, for its speed: a LoRA that adds nothing, folded."""
        nothing = write_lora(self.workspace / name, linear_shapes(base, (module,)), seed=0, strength=0)
        return Case(name, group, base, nothing, options, proof_bytes=None)


def _golden(name: str, options: ExportOptions, released: tuple[Path, tuple[str | None, ...]] | None = None) -> Case:
    folder = GOLDEN / name
    routing = f" {options.routing}" if options.mode == "dynamic" and name.startswith("tucka") else ""
    return Case(f"{name} {options.mode}{routing}", "small", folder / "base", folder / "adapter", options, released)


def _in_halves(case: Case) -> Iterator[Case]:
    """The case in float32, and in float16 unless it is static or quantized; what the released code gave is float32."""
    if case.options.precision != "fp32":
        yield case
        return
    yield replace(case, name=f"{case.name} fp32")
    if case.options.mode == "static":  # a base as any other; MiniLM is one in float16
        return
    options = replace(case.options, precision="fp16")
    yield replace(case, name=f"{case.name} fp16", options=options, released=None)
