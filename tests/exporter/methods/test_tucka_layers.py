"""The TuckA tuner against the released code's outputs, and the route's life within one forward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from eptx.exporter.methods.tucka.layer import TuckaRoute
from eptx.peft import TuckaConfig

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = ["tucka_bert48", "tucka_llama64"]


def released_model(case: str) -> Any:
    """The golden base with the golden adapter in the tuner."""
    folder = GOLDEN / case
    settings = json.loads((folder / "case.json").read_text())
    auto = AutoModelForSequenceClassification if "bert" in case else AutoModelForCausalLM
    config = TuckaConfig(
        **{key: settings[key] for key in ("r", "k", "t", "p", "alpha", "target_modules")},
        router_name=settings["router"],
    )
    model = get_peft_model(auto.from_pretrained(folder / "base"), config)
    loaded = set_peft_model_state_dict(model, load_file(folder / "adapter" / "adapter_model.safetensors"))
    assert not loaded.unexpected_keys
    assert not [key for key in loaded.missing_keys if ".tucka_" in key]
    return model.eval()


@pytest.mark.parametrize("case", CASES)
def test_forward_equals_the_released_code(case: str) -> None:
    model = released_model(case)
    golden = np.load(GOLDEN / case / "golden.npz")
    for i in range(6):
        inputs = {k: torch.from_numpy(golden[f"in{i}.{k}"]) for k in ("input_ids", "attention_mask")}
        for expected, task in ((f"out{i}", 0), (f"base{i}", 1)):
            model.base_model.set_tasks([task] * len(inputs["input_ids"]))
            with torch.no_grad():
                output = model(**inputs, output_hidden_states=True)
            for name, value in (("logits", output.logits), ("hidden", output.hidden_states[-1])):
                want = golden[f"{expected}.{name}"]
                assert np.abs(value.numpy() - want).max() <= 2e-5 * max(1, np.abs(want).max())
        route = model.base_model.state.route
        assert route.group.tolist() == [int(golden[f"out{i}.group"])]
        assert np.abs(route.weights[0].numpy() - golden[f"out{i}.weights"]).max() < 1e-6


class Toy(nn.Module):
    """Three linears on one input, run in the order asked for; ``last`` reads what they make."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.embed, self.a, self.b, self.c, self.last = (nn.Linear(6, 6) for _ in range(5))

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed(x)
        return self.last(sum(getattr(self, name)(x) for name in self.order))  # type: ignore[no-any-return]


def toy(order: str, **settings: Any) -> Any:
    torch.manual_seed(1)
    config = TuckaConfig(r=3, k=3, t=2, p=2, alpha=50, target_modules=["a", "b", "c", "last"], **settings)
    config.router_initialized = True  # they are set below
    model = get_peft_model(Toy(order), config).double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "tucka" in name:
                p.normal_()
    return model


def batch(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_route_is_never_stale_when_the_router_runs_late() -> None:
    early, late = toy("abc"), toy("bca")
    assert early.base_model.router.module == late.base_model.router.module == "a"
    for seed in range(8):
        x = batch(3, seed)
        assert torch.allclose(early(x), late(x), atol=1e-12)
        assert early.base_model.state.route.group.tolist() == late.base_model.state.route.group.tolist()


def test_groups_differ_between_batches() -> None:
    model = toy("bca")
    groups = set()
    for seed in range(8):
        model(batch(1, seed))
        groups.add(int(model.base_model.state.route.group[0]))
    assert len(groups) > 1


class Twice(Toy):
    """Toy's modules, of which the first runs again on a constant after the others, and on what they gave."""

    def __init__(self) -> None:
        super().__init__("abc")
        self.register_buffer("table", torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(9)))

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed(x)
        first: Tensor = self.a(x) + self.b(x)
        return self.last(first + self.c(self.a(self.table)).mean() + self.a(first))  # type: ignore[no-any-return]


def _by_hand(model: Any, x: Tensor, frozen: Sequence[tuple[int, list[float]] | None] = ()) -> Tensor:
    """Twice's forward with the released formulas, each module by the router's newest route."""
    net, calls, route = model.base_model.model, iter(frozen), None

    def run(name: str, value: Tensor) -> Tensor:
        nonlocal route
        layer = getattr(net, name)
        u, g, c = (getattr(layer, f"tucka_{factor}")["default"] for factor in "ugc")
        if name == "a":
            logits = (net.a.tucka_ec["default"] @ value.mean((0, 1))).reshape(3, 2)
            affinity = torch.sigmoid(logits / logits.norm(dim=1, keepdim=True))
            group = int(affinity.amax(1).argmax())
            route = next(calls, None) or (group, affinity[group])
        assert route is not None
        core = torch.einsum("t,tp,prs->rs", torch.as_tensor(route[1], dtype=x.dtype), c / c.norm(), g[route[0]])
        core = core / g[route[0]].norm()
        moved = value + 50 * value @ (u / u.norm()) @ core @ (u / u.norm()).T
        return layer.base_layer(moved)  # type: ignore[no-any-return]

    x = net.embed(x)
    first = run("a", x) + run("b", x)
    added = run("a", net.table)
    return run("last", first + run("c", added).mean() + run("a", first))


def twice() -> Any:
    torch.manual_seed(1)
    config = TuckaConfig(r=3, k=3, t=2, p=2, alpha=50, target_modules=["a", "b", "c", "last"])
    model = get_peft_model(Twice(), config).double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "tucka" in name:
                p.normal_()
    return model


def test_the_newest_route_serves_what_runs_later() -> None:
    model = twice()
    groups = set()
    for seed in range(6):
        x = batch(2, seed)
        assert torch.allclose(model(x), _by_hand(model, x), atol=1e-10)
        groups.add(tuple(int(route.group) for route in model.base_model.state.taken))
    assert len({first for first, _, _ in groups}) > 1 and len({second for _, second, _ in groups}) == 1


def test_calls_are_frozen_one_by_one() -> None:
    model, x = twice(), batch(2, 3)
    frozen: list[tuple[int, list[float]] | None] = [(1, [0.9, 0.1]), None, (2, [0.3, 0.4])]
    model.base_model.state.frozen = tuple(
        None
        if each is None
        else TuckaRoute(
            torch.tensor([each[0]]), torch.tensor([each[1]], dtype=torch.float64), torch.tensor([torch.inf])
        )
        for each in frozen
    )
    assert torch.allclose(model(x), _by_hand(model, x, frozen), atol=1e-10)
    assert torch.allclose(model(x), _by_hand(model, x, frozen), atol=1e-10)  # counted anew in every forward
    assert not torch.allclose(model(x), _by_hand(model, x), atol=1e-3)
    model.base_model.state.frozen = model.base_model.state.frozen[:2]
    with pytest.raises(ValueError, match="called more than 2 times"):
        model(x)


def test_a_router_behind_adapted_modules_is_refused() -> None:
    with pytest.raises(ValueError, match="name an earlier router"):
        toy("abc", router_name="last")(batch(2, 0))


def test_an_unknown_router_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of the adapted modules"):
        toy("abc", router_name="embed")


def test_a_part_of_the_model_has_no_route() -> None:
    model = toy("abc")
    model(batch(2, 0))
    with pytest.raises(ValueError, match="call the model"):
        model.base_model.model.b(batch(2, 1))


def test_row_routing_is_independent_of_batch_and_padding() -> None:
    model = toy("abc", routing="row")
    x, mask = batch(5, 3), torch.ones(5, 4, dtype=torch.int64)
    x[1, 2:] = 77.0
    mask[1, 2:] = 0
    together = model(x, attention_mask=mask)
    state = model.base_model.state
    groups = state.route.group.tolist()
    for row in range(5):
        kept = int(mask[row].sum())
        alone = model(x[row : row + 1, :kept])
        assert torch.allclose(alone[0], together[row, :kept], atol=1e-12)
        assert state.route.group.tolist() == [groups[row]]


def test_forced_route_is_used_by_every_module() -> None:
    model = toy("abc")
    x = batch(2, 5)
    live = model(x)
    route = model.base_model.state.route
    model.base_model.set_route(int(route.group[0]), route.weights[0].tolist())
    assert torch.allclose(model(x), live, atol=1e-12)
    model.base_model.set_route(int(route.group[0]), (route.weights[0] * 2).tolist())
    assert not torch.allclose(model(x), live, atol=1e-3)
    model.base_model.set_route(None)
    assert torch.allclose(model(x), live, atol=1e-12)


def test_centroids_come_from_the_first_batch_of_the_training() -> None:
    """As released: the mean of what the router reads, and noise around it; evaluation and later batches keep them."""
    model = toy("bca", ec_perturb_scale=0.25)
    tuner, config = model.base_model, model.peft_config["default"]
    config.router_initialized = False
    model.eval()(batch(2, 9))
    assert not config.router_initialized
    first = batch(2, 0)
    model.train()(first)
    assert config.router_initialized
    centroids = tuner.router.tucka_ec["default"].detach().clone()
    mean = tuner.model.embed(first).mean((0, 1))
    assert torch.allclose(centroids[0], mean)
    spread = (centroids - mean).abs()
    assert 0.1 < spread.max() <= 0.25
    model(batch(2, 1))
    assert torch.equal(tuner.router.tucka_ec["default"], centroids)


def test_training_reaches_every_weight() -> None:
    model = toy("bca").train()
    for name, p in model.named_parameters():
        p.requires_grad_("tucka" in name)
    model(batch(4, 2)).pow(2).sum().backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert float(model.base_model.router.tucka_ec["default"].grad.abs().sum()) > 0


@pytest.mark.parametrize("settings", [{"r": 0}, {"k": 0}, {"routing": "token"}, {"tasks": []}, {"bias": "all"}])
def test_config_refuses(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|no biases"):
        TuckaConfig(**settings)
