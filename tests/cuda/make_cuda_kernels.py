"""Makes ``cuda_kernels.json`` from ONNX Runtime's own table of kernels, docs/OperatorKernels.md.

    python -m tests.cuda.make_cuda_kernels OperatorKernels.md --commit 735e69a...

A row of the table is a kernel: an operator, the versions of it, and for each type variable of its inputs and outputs
the types. A row without a name goes on with the operator above it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUT = Path(__file__).with_name("cuda_kernels.json")
_SECTION = "## Operators implemented by CUDAExecutionProvider"
_PARAMETER = re.compile(r"\*(in|out)\* ([^:]+):\*\*([^*]+)\*\*")
_TYPES = re.compile(r"\*\*([^*]+)\*\* = (.*?)(?=<br/>|$)")


def kernels(table: str) -> Iterator[dict[str, Any]]:
    """The CUDA kernels of the table."""
    _, _, section = table.partition(_SECTION)
    section = section.partition("\n## ")[0]
    domain = operator = ""
    forms: list[dict[str, list[str]]] = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if (found := re.search(r"\*\*Operator Domain:\*\* \*([^*]+)\*", line)) is not None:
            domain = found[1]
        elif len(cells) == 6 and re.fullmatch(r"\d+\+?|\[\d+, ?\d+\]", cells[3]):
            if cells[1]:
                operator = cells[1]
                forms = [_form(part) for part in cells[2].split("<br><br>or<br><br>")]
            first, last = _versions(cells[3])
            types = {name: _plain(kinds) for name, kinds in _TYPES.findall(cells[4])}
            yield {"domain": domain, "op": operator, "first": first, "last": last, "forms": forms, "types": types}


def _form(cell: str) -> dict[str, list[str]]:
    """The type variable, or the type, of each input and output."""
    found = _PARAMETER.findall(cell)
    return {side: [_plain(kind)[0] for which, _, kind in found if which == side] for side in ("in", "out")}


def _versions(cell: str) -> tuple[int, int | None]:
    """The first and last version; None where it has no end."""
    numbers = [int(number) for number in re.findall(r"\d+", cell)]
    return numbers[0], None if cell.endswith("+") else numbers[-1]


def _plain(kinds: str) -> list[str]:
    """Types without ``tensor()`` around them."""
    return [re.sub(r"^tensor\((\w+)\)$", r"\1", kind.strip()) for kind in kinds.split(", ")]


def main() -> None:
    """Writes the file, one kernel a line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("table", type=Path)
    parser.add_argument("--commit", required=True, help="of the table, in microsoft/onnxruntime")
    parser.add_argument("--date", required=True, help="of the commit")
    args = parser.parse_args()
    source = {
        "source": "https://github.com/microsoft/onnxruntime/blob/main/docs/OperatorKernels.md, CUDAExecutionProvider",
        "commit": args.commit,
        "date": args.date,
        "licence": "MIT, Copyright (c) Microsoft Corporation",
        "made by": "python -m tests.cuda.make_cuda_kernels",
    }
    rows = ",\n".join(f" {json.dumps(row)}" for row in kernels(args.table.read_text()))
    head = ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in source.items())
    OUT.write_text(f'{{\n{head},\n"kernels": [\n{rows}\n]\n}}\n')


if __name__ == "__main__":
    main()
