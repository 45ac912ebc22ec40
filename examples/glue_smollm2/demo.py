"""One EPT adapter with six tasks on SmolLM2-135M-Instruct: exported in 4 bits, answering four tasks in one batch.

    python examples/glue_smollm2/demo.py [--out FOLDER] [--base FOLDER] [--validate]

The bundle generates through ONNX Runtime GenAI; every row of a batch names its own task.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from base import prepare_base

from eptx import ExportOptions, Session, ValidateOptions, export, validate
from eptx.progress import shown

HERE = Path(__file__).resolve().parent
TASKS = ("cola", "mrpc", "rte", "sst2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/demo/smollm2"), help="where the bundle goes")
    parser.add_argument("--base", type=Path, help="transformers folder of SmolLM2-135M-Instruct")
    parser.add_argument("--validate", action="store_true", help="compare with PyTorch too, which takes minutes")
    options = parser.parse_args()
    base = options.base or prepare_base()
    with shown():
        start = time.perf_counter()
        bundle = export(base, [HERE / "ept"], options.out, ExportOptions(mode="conditioned", precision="int4"))
    seconds = time.perf_counter() - start
    size = bundle.size
    print(f"exported {options.out}: {size / 1e6:.1f} MB in {seconds:.1f} s, tasks {', '.join(TASKS)} and more")
    answer(Session(options.out))
    if options.validate and not check(base, options.out):
        raise SystemExit(4)


def answer(session: Session) -> None:
    """Rows of four tasks in one batch, and the same rows without the adapter."""
    rows = samples()
    prompts = [row["text"] for row in rows]
    start = time.perf_counter()
    answers = session.generate(prompts, task=[row["task"] for row in rows], max_new_tokens=4)
    seconds = time.perf_counter() - start
    plain = session.generate(prompts, task="base", max_new_tokens=4)
    print(f"\n{len(rows)} prompts of {len(TASKS)} tasks in one batch, {seconds:.2f} s")
    print(f"{'task':>6}  {'answer':<14} {'expected':<14} {'base alone':<14} prompt")
    for row, text, base_text in zip(rows, answers.texts, plain.texts, strict=True):
        words = (text.strip(), row["label"].strip(), repr(base_text.strip())[:13])
        print(
            f"{row['task']:>6}  " + " ".join(f"{word:<14}" for word in words),
            " / ".join(row["text"].split("\n"))[:70],
        )


def samples(each: int = 2) -> list[dict[str, str]]:
    """Some rows of every task."""
    lines = (HERE / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for task in TASKS for row in [r for r in rows if r["task"] == task][:each]]


def check(base: Path, bundle: Path) -> bool:
    """Whether the bundle computes what PyTorch does on the same 4-bit weights."""
    with shown():
        report = validate(bundle, ValidateOptions(base=base, adapters=[HERE / "ept"]))
    print(f"\nvalidation: {report.reason or 'passed'}")
    return report.passed


if __name__ == "__main__":
    main()
