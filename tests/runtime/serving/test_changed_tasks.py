"""Tasks that are added to a bundle and removed while it is served: every request is answered, and as PEFT answers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

import eptx
from eptx.exporter import ExportOptions
from tests.runtime.serving.servers import Server, serving, wait_for

IDS = [[3, 5, 7, 9]]


def test_tasks_change_under_load(tmp_path: Path) -> None:
    base, expected = _train(tmp_path)
    bundle = tmp_path / "bundle"
    eptx.export(base, [tmp_path / "a", tmp_path / "b"], bundle, ExportOptions(mode="conditioned"))
    with serving(tmp_path, bundle) as server:
        assert _ask(server, "c")[0] == 400
        with _Load(server, expected, ("a", "base")) as load, _Load(server, expected, ("b",)) as other:
            eptx.add(bundle, [tmp_path / "c"], bundle)
            wait_for(lambda: _ask(server, "c")[0] == 200)
            _is(_ask(server, "c"), expected["c"])
            other.stop()
            eptx.remove(bundle, ["b"], bundle)
            wait_for(lambda: _ask(server, "b")[0] == 400)
            _is(_ask(server, "c"), expected["c"])
        assert server.metric("eptx_reloads_total", result="done") == 2
        assert load.wrong == other.wrong == []
        assert min(load.count, other.count) > 5
        assert server.stop() == 0


def _train(folder: Path) -> tuple[Path, Mapping[str, np.ndarray]]:
    """A base, adapters `a`, `b` and `c` beside it, and what transformers and PEFT answer for each, and for the base."""
    from peft import LoraConfig, get_peft_model
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=40, max_position_embeddings=20, **sizes)).save_pretrained(folder / "base")
    expected = {"base": _forward(BertModel.from_pretrained(folder / "base"))}
    for name, targets, rank in (("a", ["query", "value"], 4), ("b", ["query"], 2), ("c", ["key", "output.dense"], 8)):
        model = get_peft_model(
            BertModel.from_pretrained(folder / "base"),
            LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, init_lora_weights=False),
        )
        model.save_pretrained(folder / name)
        expected[name] = _forward(model)
    return folder / "base", expected


def _forward(model: Any) -> np.ndarray:
    with torch.no_grad():
        answer: np.ndarray = model.eval()(input_ids=torch.tensor(IDS)).last_hidden_state.numpy()
    return answer


def _ask(server: Server, task: str) -> tuple[int, Any]:
    shape = [len(IDS), len(IDS[0])]
    tensors = [
        {"name": name, "datatype": "INT64", "shape": shape, "data": np.array(data).ravel().tolist()}
        for name, data in (("input_ids", IDS), ("attention_mask", np.ones(shape, int)))
    ]
    outputs = [{"name": "last_hidden_state"}]
    return server.infer({"inputs": tensors, "parameters": {"task": task}, "outputs": outputs}, "bundle")


def _differs(answer: tuple[int, Any], expected: np.ndarray) -> str:
    """How an answer is wrong; "" if it is not."""
    status, content = answer
    if status != 200:
        return f"{status}: {content}"
    distance = float(np.abs(np.reshape(content["outputs"][0]["data"], expected.shape) - expected).max())
    return "" if distance < 2e-5 * max(1.0, float(np.abs(expected).max())) else f"{distance} off"


def _is(answer: tuple[int, Any], expected: np.ndarray) -> None:
    assert _differs(answer, expected) == ""


class _Load:
    """Requests for some tasks without a pause, each answer compared."""

    def __init__(self, server: Server, expected: Mapping[str, np.ndarray], tasks: tuple[str, ...]) -> None:
        self._server, self._expected, self._tasks = server, expected, tasks
        self._stop, self._pool = threading.Event(), ThreadPoolExecutor(1)
        self.count, self.wrong = 0, list[str]()

    def __enter__(self) -> _Load:
        self._running = self._pool.submit(self._run)
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends, after the answer that is awaited."""
        self._stop.set()
        self._pool.shutdown()
        self._running.result()

    def _run(self) -> None:
        while not self._stop.is_set():
            for task in self._tasks:
                wrong = _differs(_ask(self._server, task), self._expected[task])
                self.count += 1
                if wrong:
                    self.wrong.append(f"{task}: {wrong}")
