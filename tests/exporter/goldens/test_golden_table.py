"""Goldens of the released codes in the modes that no other test of them has, each validated too.

What `test_goldens` and `test_golden_heads` hold is not asked again; but where they do not validate, this does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import NotSupportedError
from eptx.exporter import ExportOptions, Route
from eptx.exporter.steps import load
from tests.exporter.goldens.by_proof import passes
from tests.exporter.goldens.test_golden_heads import _images
from tests.exporter.goldens.test_goldens import GOLDEN, _close, _logits, _sessions
from tests.exporter.goldens.test_moe_lora import CASES as MOE_LORA
from tests.exporter.validation.workshop import Workshop
from tests.support.decoders import write_tokenizer
from tests.support.encoder_decoders import Calls, KeptGraphs

MODES = ("static", "conditioned", "dynamic")
EPT = [
    *((name, mode) for name in ("ept_bert48", "ept_bert_ksbig", "ept_bert_patterns") for mode in MODES),
    *(("ept_llama64", mode) for mode in MODES),
]
ROUTED = ("batch", "row", "static", "conditioned")
TUCKA = [
    *((name, mode) for name in ("tucka_bert48", "tucka_llama64", "tucka_glue") for mode in ROUTED),
    ("tucka_vit_cifar_cls", "row"),
    ("tucka_clip_imagecls", "row"),
]
_TASK = 5  # of a static bundle


class Case:
    """A golden with the shop that exports and validates it."""

    def __init__(self, name: str, root: Path) -> None:
        self.folder = GOLDEN / name
        self.settings = json.loads((self.folder / "case.json").read_text())
        with np.load(self.folder / "golden.npz") as arrays:
            self.arrays = dict(arrays)
        base = self.folder / "base"
        self.decoder = "llama" in name
        if self.decoder:
            base = Path(shutil.copytree(base, root / "base"))
            write_tokenizer(base, json.loads((base / "config.json").read_text())["vocab_size"])
        self.shop = Workshop(base, root)

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    def batches(self) -> list[tuple[int, dict[str, np.ndarray]]]:
        count = len({key.partition(".")[0] for key in self.arrays if key.startswith("in")})
        return [
            (i, {k.partition(".")[2]: a for k, a in self.arrays.items() if k.startswith(f"in{i}.")})
            for i in range(count)
        ]

    def graph(self) -> dict[str, Path]:
        """The base's graph, traced once; decoders are built, in less time, and one base has no head of its own."""
        return {} if self.decoder or self.folder.name == "tucka_glue" else {"base_onnx": self.shop.onnx}

    def export(self, **options: Any) -> Bundle:
        settings = ExportOptions(**options)
        return export_bundle(self.shop.base, [self.adapter], self.shop.path(), settings)


@pytest.fixture(scope="module")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    cases: dict[str, Case] = {}

    def get(name: str) -> Case:
        if name not in cases:
            cases[name] = Case(name, tmp_path_factory.mktemp(name))
        return cases[name]

    return get


@pytest.mark.parametrize(("name", "mode"), EPT)
def test_ept(case_of: Callable[[str], Case], name: str, mode: Any) -> None:
    case = case_of(name)
    task = f"task{_TASK}" if mode == "static" else None
    bundle = case.export(mode=mode, top_k=case.settings["top_k"], task=task, **case.graph())
    for session in _sessions(bundle):
        for index, feeds in case.batches():
            rows = len(feeds["input_ids"])
            outs = [*(case.arrays[f"out{index}.task{t}.logits"] for t in range(8)), case.arrays[f"base{index}.logits"]]
            for first in (0,) if task else (0, 2, 4, 6, 8):
                ids = (np.arange(rows) + first) % 9
                want = outs[_TASK] if task else np.stack([outs[t][row] for row, t in enumerate(ids)])
                for got in _logits(session, feeds, task_id=ids):
                    _close(got, want)
    passes(bundle)


@pytest.mark.parametrize(("name", "mode"), TUCKA)
def test_tucka(case_of: Callable[[str], Case], name: str, mode: Any) -> None:
    """Live by the batch or by the row (then what a batch of one row gives), and by the recorded route."""
    case = case_of(name)
    live = mode in ("batch", "row")
    for index, feeds in case.batches():
        if index:
            break  # all batches of it are run live; another route is another export
        route = {}
        if not live:
            which = "first_" if f"out{index}.first_group" in case.arrays else ""
            group, weights = (case.arrays[f"out{index}.{which}{what}"].reshape(-1) for what in ("group", "weights"))
            route = {None: Route(int(group[0]), tuple(map(float, weights)))}
        options: dict[str, Any] = {"mode": "dynamic", "routing": mode} if live else {"mode": mode, "routes": route}
        bundle = case.export(**options, **case.graph())
        for session in _sessions(bundle):
            for other, each in case.batches() if live else [(index, feeds)]:
                count = len(next(iter(each.values())))
                if mode == "row" and count > 1:
                    continue
                want = case.arrays[f"out{other}.logits"]
                if "pixel_values" in each:
                    _close(session.run(["logits"], _images(each))[0], want)
                    continue
                if live and case.decoder:
                    _close(_logits(session, each)[0], want)  # routed anew in every call
                    continue
                for got in _logits(session, each, task_id=np.zeros(count, np.int64)):
                    _close(got, want)
    passes(bundle)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptGraphs:
    return KeptGraphs(tmp_path_factory.mktemp("t5"))


@pytest.mark.parametrize("mode", MODES)
def test_ept_on_t5(case_of: Callable[[str], Case], kept: KeptGraphs, mode: Any) -> None:
    case = case_of("ept_t5_ks16")
    task = f"task{_TASK}" if mode == "static" else None
    with mock.patch.object(load, "load_encoder_decoder", kept):
        bundle = case.export(mode=mode, top_k=case.settings["top_k"], task=task)
    for kernels in (True, False):
        calls = Calls(bundle, kernels=kernels)
        for index, feeds in case.batches():
            rows = len(feeds["input_ids"])
            outs = [*(case.arrays[f"out{index}.task{t}.logits"] for t in range(8)), case.arrays[f"base{index}.logits"]]
            for first in (0,) if task else (0, 2, 4, 6, 8):
                ids = (np.arange(rows) + first) % 9
                more = {} if task else {"task_id": ids}
                want = outs[_TASK] if task else np.stack([outs[t][row] for row, t in enumerate(ids)])
                calls.encode(feeds["input_ids"], feeds["attention_mask"], **more)
                _close(calls.decode(feeds["decoder_input_ids"])["logits"], want)
    passes(bundle)


def test_no_task_is_inferred_from_what_it_decides(case_of: Callable[[str], Case]) -> None:
    """The tasks bring norms: what the first adapted module reads is another for each task, and for `base`."""
    case = case_of("ept_llama_modules")
    with pytest.raises(NotSupportedError, match="router reads the output of modules that it routes"):
        case.export(mode="dynamic", top_k=case.settings["top_k"])


def test_every_golden_is_in_a_test_that_exports_it() -> None:
    here = {name for name, _ in (*EPT, *TUCKA)} | {"ept_t5_ks16"}
    elsewhere = {"ept_bert_seqcls", "ept_llama_modules", "tucka_deberta64", "tucka_glue_folded", *MOE_LORA}
    layers = {"layers"}  # of released codes by themselves: test_released_layers
    assert here | elsewhere | layers == {path.name for path in GOLDEN.iterdir()}
