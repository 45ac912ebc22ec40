"""How time, memory and bytes grow with the base and with the number of tasks.

    make bench-scale ARGS="[--only bert llama t5 tasks] [--largest 1.2] [--json FILE]"

Bases are random weights of real configurations; each has two LoRA adapters that PEFT saves, in one conditioned bundle
(decoders in int4). Every step is a process of its own: seconds of its processor time, and how far its memory grows past
that of its imports. The exponent is that of the growth between the two largest of a family: 1 is linear. The line of
these two says what 7 billion weights, or 100,000 tasks, would take; it is an estimate.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eptx.runtime.machine import machine

#: What a step measures.
Cost = dict[str, float]

#: family -> [(configuration's class, model's class, values)], by size.
FAMILIES: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "bert": [
        (
            "BertConfig",
            "BertForSequenceClassification",
            {
                "hidden_size": width,
                "num_hidden_layers": layers,
                "num_attention_heads": width // 64,
                "intermediate_size": 4 * width,
            },
        )
        for width, layers in ((384, 6), (768, 12), (1024, 24))
    ],
    "llama": [
        (
            "LlamaConfig",
            "LlamaForCausalLM",
            {
                "vocab_size": vocabulary,
                "hidden_size": width,
                "num_hidden_layers": layers,
                "num_attention_heads": width // 64,
                "num_key_value_heads": heads,
                "intermediate_size": inner,
                "max_position_embeddings": 2048,
            },
        )
        for vocabulary, width, layers, heads, inner in (
            (49152, 576, 30, 3, 1536),
            (32000, 2048, 22, 4, 5632),
            (32000, 3072, 28, 8, 8192),
        )
    ],
    "t5": [
        (
            "T5Config",
            "T5ForConditionalGeneration",
            {
                "d_model": width,
                "d_kv": 64,
                "d_ff": 4 * width,
                "num_layers": layers,
                "num_heads": width // 64,
                "decoder_start_token_id": 0,
            },
        )
        for width, layers in ((512, 6), (768, 12))
    ],
}
_ADAPTED = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"], "t5": ["q", "v"]}
_STEPS = ("export", "validate", "open", "run")
_TASKS = (100, 1_000, 10_000)
_FAR = {"weights": 7e9, "tasks": 1e5}

_BASE = """
import json, sys, torch, transformers
from pathlib import Path
from peft import LoraConfig, get_peft_model
from tests.support.decoders import write_tokenizer
config, kind, values, adapted, out = sys.argv[1:]
out = Path(out)
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16 if kind == 'LlamaForCausalLM' else torch.float32)
model = getattr(transformers, kind)(getattr(transformers, config)(**json.loads(values)))
model.save_pretrained(out / 'base')
write_tokenizer(out / 'base', model.config.vocab_size)
count = sum(p.numel() for p in model.parameters())
lora = LoraConfig(r=16, target_modules=json.loads(adapted), init_lora_weights=False)
model = get_peft_model(model, lora, adapter_name='first')
model.add_adapter('second', lora)
model.save_pretrained(out / 'adapters')
print(json.dumps(count))
"""
_MANY = """
import json, sys, torch, transformers
from pathlib import Path
from tests.bench.many_tasks import MODULES
from tests.exporter.validation.adapters import linear_shapes, write_ept
from tests.support.decoders import write_tokenizer
values, tasks, out = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
transformers.BertForSequenceClassification(transformers.BertConfig(**values)).save_pretrained(out / 'base')
write_tokenizer(out / 'base', 30522)
shapes = {n: s for n, s in linear_shapes(out / 'base', MODULES).items() if '.encoder.' in n}
for count in tasks:
    write_ept(out / str(count), shapes, seed=0, tasks=count, rank=16)
"""
#: A step, after what it imports.
_STEP = """
import json, resource, sys, time
import numpy as np
step, base, bundle, options, *adapters = sys.argv[1:]
from pathlib import Path
import torch, transformers, onnxscript, onnxruntime
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.runtime import Session

def memory(key):
    return next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith(key))

def used():
    return sum(getattr(resource.getrusage(who), key) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
               for key in ('ru_utime', 'ru_stime'))

ids = np.full((1, 16), 7)
session = Session(bundle) if step == 'run' else None
before, cpu, wall = memory('VmRSS'), used(), time.perf_counter()
if step == 'export':
    export_bundle(Path(base), [Path(a) for a in adapters], Path(bundle), ExportOptions(**json.loads(options)))
elif step == 'validate':
    assert validate_bundle(Path(bundle), ValidateOptions(providers=['cpu'])).passed
elif step == 'open':
    Session(bundle)
elif session.manifest.generation is None:
    for _ in range(10):
        session.run({'input_ids': ids}, session.manifest.tasks[0].name)
else:
    session.generate([[7] * 16], session.manifest.tasks[0].name, max_new_tokens=10)
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({'seconds': time.perf_counter() - wall, 'cpu': used() - cpu,
                  'memory': max(memory('VmHWM') - before, children)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*FAMILIES, "tasks"], default=[*FAMILIES, "tasks"])
    parser.add_argument("--largest", type=float, default=1.2, help="the most weights of a base, in billions")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    print(machine())
    found: dict[str, Any] = {"machine": machine()}
    for family in (name for name in FAMILIES if name in arguments.only):
        found[family] = _bases(family, arguments.largest * 1e9)
    if "tasks" in arguments.only:
        found["tasks"] = _tasks()
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def _bases(family: str, most: float) -> dict[float, dict[str, Cost]]:
    """Every base of a family: its number of weights, and what each step takes."""
    costs: dict[float, dict[str, Cost]] = {}
    for config, kind, values in FAMILIES[family]:
        if _weights(config, kind, values) > most:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            count = _child(_BASE, config, kind, json.dumps(values), json.dumps(_ADAPTED[family]), scratch)
            options = {"mode": "conditioned", "precision": "int4" if family == "llama" else "fp32"}
            adapters = [folder / "adapters" / name for name in ("first", "second")]
            costs[count] = _steps(folder / "base", folder / "bundle", options, adapters)
    _show(family, "weights", costs)
    return costs


def _tasks() -> dict[float, dict[str, Cost]]:
    """A base of 22 million weights with more and more tasks of one EPT adapter."""
    costs: dict[float, dict[str, Cost]] = {}
    _, _, values = FAMILIES["bert"][0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _child(_MANY, json.dumps(values), json.dumps(_TASKS), scratch, answers=False)
        for count in _TASKS:
            options = {"mode": "conditioned", "top_k": 2}
            costs[count] = _steps(folder / "base", folder / f"bundle-{count}", options, [folder / str(count)])
    _show("EPT", "tasks", costs)
    return costs


def _weights(config: str, kind: str, values: Mapping[str, Any]) -> int:
    import torch
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, kind)(getattr(transformers, config)(**values))
    return sum(parameter.numel() for parameter in model.parameters())


def _steps(base: Path, bundle: Path, options: Mapping[str, Any], adapters: Sequence[Path]) -> dict[str, Cost]:
    costs = {}
    for step in _STEPS:
        costs[step] = _child(_STEP, step, str(base), str(bundle), json.dumps(options), *map(str, adapters))
        cost = costs[step]
        print(f"  {base.parent.name} {step}: {cost['cpu']:.1f} s, {cost['memory'] / 1e6:.0f} MB", flush=True)
    costs["export"]["bytes"] = float(sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file()))
    costs["export"]["base bytes"] = float(sum(file.stat().st_size for file in base.glob("*.safetensors")))
    return costs


def _child(code: str, *arguments: str, answers: bool = True) -> Any:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments[:1])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1]) if answers else None


def _show(name: str, unit: str, costs: Mapping[float, Mapping[str, Cost]]) -> None:
    """A table: each measure at every size, the exponent of its growth, and its line far away."""
    sizes, far = sorted(costs), _FAR[unit]
    print(f"\n{name}, by {unit}")
    print(f"  {'':<20}" + "".join(f"{size:>12,.0f}" for size in sizes) + f"{'exponent':>10}{far:>16,.0f}")
    for step in _STEPS:
        for measure in costs[sizes[0]][step]:
            if measure == "seconds":
                continue
            values = [costs[size][step][measure] for size in sizes]
            exponent, line = _grown(sizes, values, far) if len(sizes) > 1 else (math.nan, math.nan)
            scale, of = (1.0, "s") if measure == "cpu" else (1e6, "MB")
            cells = "".join(f"{value / scale:>12,.1f}" for value in values)
            print(f"  {step + ' ' + measure:<20}{cells}{exponent:>10.2f}{line / scale:>13,.1f} {of}", flush=True)


def _grown(sizes: Sequence[float], values: Sequence[float], far: float) -> tuple[float, float]:
    """The exponent between the two largest, and the value of their line at `far`."""
    (x, nearer), (y, further) = list(zip(sizes, values, strict=True))[-2:]
    exponent = math.log(max(further, 1e-9) / max(nearer, 1e-9)) / math.log(y / x)
    return exponent, further + (further - nearer) / (y - x) * (far - y)


if __name__ == "__main__":
    main()
