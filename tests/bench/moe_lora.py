"""HydraLoRA with 3 B, MixLoRA with 8 experts of which a token takes 2, and Poly with 8 skills, conditioned, on MiniLM.

Beside each is the same adapter as it is usually written in ONNX: expert by expert, in standard operators.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from safetensors.numpy import save_file

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.bases import Site, load_transformers, locate
from eptx.exporter.bundle.clean import clean
from eptx.exporter.graph.editor import GraphEditor
from tests.bench import latency
from tests.bench.latency import Contender
from tests.exporter.validation.adapters import linear_shapes

RANK, HYDRA, EXPERTS, TOP, SKILLS, TASKS = 8, 3, 8, 2, 8, 8
_ATTENTION, _FIRST, _LAST = (
    (".query", ".key", ".value", "attention.output.dense"),
    ".intermediate.dense",
    ".output.dense",
)
Shapes = dict[str, tuple[int, int]]
Tensors = dict[str, np.ndarray]


def moe_lora(folder: Path, base: Path, onnx: Path, *, pairs: int, threads: int) -> dict[str, Any]:
    """Latency over the base's, of each bundle with kernels and with bodies, and of the usual graph."""
    found = linear_shapes(base, ("query", "key", "value", "dense"))
    shapes = {name: (int(out), int(into)) for name, (out, into) in found.items() if name.startswith("encoder.")}
    made: dict[str, tuple[Tensors, dict[str, Any], str, Callable[[Path, Path, Tensors], Path]]] = {
        "hydra_lora": (_hydra(shapes), {"peft_type": "HYDRA_LORA", "lora_alpha": RANK}, "dynamic", _usual_hydra),
        "mixlora": (_mixlora(shapes), _MIXLORA, "dynamic", _usual_mixlora),
        "poly": (_poly(shapes), _POLY, "conditioned", _usual_poly),
    }
    contenders = {"base against itself": Contender(onnx)}
    for name, (tensors, config, mode, usual) in made.items():
        adapter, bundle = folder / name, folder / f"{name}-bundle"
        adapter.mkdir()
        save_file(
            {f"base_model.model.{key}": array for key, array in tensors.items()}, adapter / "adapter_model.safetensors"
        )
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        export_bundle(base, [adapter], bundle, ExportOptions(mode=mode))  # type: ignore[arg-type]
        contenders[name] = Contender(bundle)
        contenders[f"{name}, bodies"] = Contender(bundle, native=False)
        contenders[f"{name}, as usual"] = Contender(usual(base, folder / f"{name}.onnx", tensors))
    print(f"\nMoE-LoRA of rank {RANK} at {len(shapes)} modules: latency / base graph")
    table = latency.measure(onnx, contenders, pairs=pairs, threads=threads, shapes=latency.SHAPES)
    latency.show(table)
    for name in made:
        parts = {
            shape: (table[name][shape]["ratio"] - 1) / max(1e-9, table[f"{name}, bodies"][shape]["ratio"] - 1)
            for shape in table[name]
        }
        print(f"  {name}: overhead of kernels / of bodies: " + ", ".join(f"{s} {p:.2f}" for s, p in parts.items()))
    return table


_MIXLORA = {"peft_type": "MIXLORA", "top_k": TOP, "scaling": 1.0, "expert_scaling": 1.0}
_POLY = {"peft_type": "POLY", "poly_type": "poly", "r": RANK, "n_tasks": TASKS, "n_skills": SKILLS, "n_splits": 1}


def _drawn(seed: int, *shape: int, scale: float = 0.02) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def _hydra(shapes: Shapes) -> Tensors:
    tensors = {}
    for seed, (name, (out, into)) in enumerate(shapes.items()):
        tensors[f"{name}.lora_route.weight"] = _drawn(seed, HYDRA, into, scale=0.2)
        tensors[f"{name}.lora_A.weight"] = _drawn(seed, RANK, into)
        tensors |= {f"{name}.lora_B{i}.weight": _drawn(seed + i, out, RANK) for i in range(HYDRA)}
    return tensors


def _mixlora(shapes: Shapes) -> Tensors:
    tensors = {}
    for seed, (name, (out, into)) in enumerate(shapes.items()):
        count = 1 if name.endswith(_ATTENTION) else EXPERTS
        tensors[f"{name}.moe_lora_A"] = _drawn(seed, count, RANK, into)
        tensors[f"{name}.moe_lora_B"] = _drawn(seed, count, out, RANK)
        if name.endswith(_FIRST):
            tensors[f"{name}.moe_gate"] = _drawn(seed, EXPERTS, into, scale=0.2)
    return tensors


def _poly(shapes: Shapes) -> Tensors:
    tensors = {}
    for seed, (name, (out, into)) in enumerate(shapes.items()):
        tensors[f"{name}.poly_lora_A"] = _drawn(seed, 1, SKILLS, into, RANK)
        tensors[f"{name}.poly_lora_B"] = _drawn(seed, 1, SKILLS, RANK, out)
        tensors[f"{name}.poly_router.module_logits"] = _drawn(seed, TASKS, SKILLS, scale=1.0)
    return tensors


def _edited(base: Path, path: Path, names: list[str], edit: Callable[[GraphEditor, dict[str, Site]], None]) -> Path:
    graph = load_transformers(base, headless=True)
    editor = GraphEditor(graph.model)
    edit(editor, locate(graph, names))
    editor.finish()
    clean(graph.model)
    ir.save(graph.model, path, external_data=f"{path.name}.data")
    return path


def _one(editor: GraphEditor, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
    return editor.node(op_type, list(inputs), **attributes)[0]


def _low(editor: GraphEditor, name: str, x: ir.Value, a: np.ndarray, b: np.ndarray) -> ir.Value:
    """x A^T B^T."""
    hidden = _one(editor, "MatMul", x, editor.constant(f"{name}.a", a.T))
    return _one(editor, "MatMul", hidden, editor.constant(f"{name}.b", b.T))


def _share(editor: GraphEditor, p: ir.Value, expert: int) -> ir.Value:
    """The weight of one expert, [..., 1]."""
    bounds = [editor.constant(f"at.{i}", np.array([i])) for i in (expert, expert + 1, -1)]
    return _one(editor, "Slice", p, *bounds)


def _usual_hydra(base: Path, path: Path, tensors: Tensors) -> Path:
    names = [key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")]

    def edit(editor: GraphEditor, sites: dict[str, Site]) -> None:
        for name, site in sites.items():
            y, uses, x = site.y, list(site.y.uses()), site.x
            route = editor.constant(f"{name}.route", tensors[f"{name}.lora_route.weight"].T)
            p, new = _one(editor, "Softmax", _one(editor, "MatMul", x, route), axis=-1), y
            for i in range(HYDRA):
                a, b = tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B{i}.weight"]
                update = _one(editor, "Mul", _share(editor, p, i), _low(editor, f"{name}.{i}", x, a, b))
                new = _one(editor, "Add", new, update)
            editor.replace(y, new, uses)

    return _edited(base, path, names, edit)


def _usual_mixlora(base: Path, path: Path, tensors: Tensors) -> Path:
    names = [key.removesuffix(".moe_lora_A") for key in tensors if key.endswith(".moe_lora_A")]

    def factors(name: str, expert: int) -> tuple[np.ndarray, np.ndarray]:
        return tensors[f"{name}.moe_lora_A"][expert], tensors[f"{name}.moe_lora_B"][expert]

    def edit(editor: GraphEditor, sites: dict[str, Site]) -> None:
        for name, site in sites.items():
            y, uses, x = site.y, list(site.y.uses()), site.x
            if name.endswith(_ATTENTION):
                editor.replace(y, _one(editor, "Add", y, _low(editor, name, x, *factors(name, 0))), uses)
            if not name.endswith(_FIRST):
                continue
            last = name.removesuffix(_FIRST) + _LAST
            gate = editor.constant(f"{name}.gate", tensors[f"{name}.moe_gate"].T)
            p = _one(editor, "Softmax", _one(editor, "MatMul", x, gate), axis=-1)
            top, _ = editor.node("TopK", [p, editor.constant("k", np.array([TOP]))], outputs=2)
            least = _one(editor, "ReduceMin", top, editor.constant("axis", np.array([-1])))
            kept = _one(editor, "Mul", p, _one(editor, "CastLike", _one(editor, "GreaterOrEqual", p, least), p))
            p = _one(editor, "Div", kept, _one(editor, "ReduceSum", kept, editor.constant("axis", np.array([-1]))))
            between = _between(site, sites[last])
            total: ir.Value | None = None
            for expert in range(EXPERTS):
                value = _one(editor, "Add", y, _low(editor, f"{name}.{expert}", x, *factors(name, expert)))
                value = _again(editor, between, y, value)
                product = _again(editor, [sites[last].node], sites[last].x, value)
                low = _low(editor, f"{last}.{expert}", value, *factors(last, expert))
                own = _one(editor, "Mul", _share(editor, p, expert), _one(editor, "Add", product, low))
                total = own if total is None else _one(editor, "Add", total, own)
            assert total is not None
            editor.replace(sites[last].y, total, [use for use in sites[last].y.uses() if use[0].graph is not None])

    return _edited(base, path, names, edit)


def _between(first: Site, last: Site) -> list[ir.Node]:
    """The nodes from one product to the next, which are one after the other."""
    nodes, value = [], first.y
    while value is not last.x:
        (node,) = {user for user, _ in value.uses() if user.graph is not None}
        nodes.append(node)
        value = node.outputs[0]
    return nodes


def _again(editor: GraphEditor, nodes: list[ir.Node], old: ir.Value, new: ir.Value) -> ir.Value:
    """Nodes once more, of another value."""
    for node in nodes:
        inputs = [new if value is old else value for value in node.inputs if value is not None]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        old, new = node.outputs[0], editor.node(node.op_type, inputs, domain=node.domain, **attributes)[0]
    return new


def _usual_poly(base: Path, path: Path, tensors: Tensors) -> Path:
    """Every row's factors are mixed of the skills in every call."""
    names = [key.removesuffix(".poly_lora_A") for key in tensors if key.endswith(".poly_lora_A")]

    def edit(editor: GraphEditor, sites: dict[str, Site]) -> None:
        task = editor.task_id()
        for name, site in sites.items():
            y, uses, x = site.y, list(site.y.uses()), site.x
            logits = tensors[f"{name}.poly_router.module_logits"]
            shares = 1 / (1 + np.exp(-logits))
            own = editor.gather(editor.constant(f"{name}.shares", shares / shares.sum(1, keepdims=True)), task)
            factors = []
            for part in ("A", "B"):
                skills = tensors[f"{name}.poly_lora_{part}"][0]
                flat = editor.constant(f"{name}.{part}", skills.reshape(SKILLS, -1))
                shape = editor.constant(f"{name}.{part}.shape", np.array([-1, *skills.shape[1:]]))
                factors.append(_one(editor, "Reshape", _one(editor, "MatMul", own, flat), shape))
            update = _one(editor, "MatMul", _one(editor, "MatMul", x, factors[0]), factors[1])
            scaled = _one(editor, "Mul", update, editor.constant("scale", np.array(1 / RANK)))
            editor.replace(y, _one(editor, "Add", y, scaled), uses)

    return _edited(base, path, names, edit)
