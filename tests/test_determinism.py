"""The same export in two processes gives the same bytes, whatever order their sets and dicts have.

Run as a script, this file makes the exports of one process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import eptx
from tests.malformed.scene import Scene, make_scene

GOLDEN = Path(__file__).parent / "golden"
ROUTE = "1:0.5,0.25"


def test_two_processes(tmp_path: Path) -> None:
    scene = _inputs(tmp_path / "in")
    root, package = Path(__file__).parents[1], Path(eptx.__file__).parent.parent  # type: ignore[arg-type]
    paths = [str(package), str(root), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(scene.root), str(tmp_path / f"seed{seed}")],
            env={**environment, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    files = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        files.append(json.loads(out))
    first, second = files
    assert len(first) == 1 + 2 * 9
    assert first == second
    assert all({"model.onnx", "eptx.json", "README.md"} <= set(hashes) for hashes in first.values())


def _inputs(root: Path) -> Scene:
    root.mkdir()
    scene = make_scene(root)
    for name in ("tokenizer.json", "vocab.txt"):  # companions that are copied
        (scene.base / name).write_text("{}")
    return scene


def main(root: Path, out: Path) -> None:
    """Exports everything to ``out``, and prints the SHA-256 of every file of every bundle."""
    from eptx._files import hash_file, list_files
    from eptx.errors import BundleError
    from eptx.exporter import ExportOptions, Route, export_bundle

    scene = Scene(root)
    hashes: dict[str, dict[str, str]] = {}

    def export(name: str, base: Path | None, adapters: list[Path], **options: object) -> None:
        bundle = out / name
        export_bundle(base, adapters, bundle, ExportOptions(**options))  # type: ignore[arg-type]
        files = list_files(bundle, error=BundleError)
        hashes[name] = {file: hash_file(bundle / file, error=BundleError)[1] for file in files}

    route = {None: Route.parse(ROUTE)}
    for beside, base in (("beside its folder", scene.base), ("alone", None)):
        onnx = {"base_onnx": scene.onnx}
        ept, tucka = [scene.ept], [scene.tucka]
        export(f"ept, static, {beside}", base, ept, mode="static", task="mnli", top_k=2, **onnx)
        export(f"ept, conditioned, {beside}", base, ept, mode="conditioned", top_k=2, precision="fp16", **onnx)
        export(f"ept, dynamic, {beside}", base, ept, mode="dynamic", top_k=2, **onnx)
        export(f"tucka, static, {beside}", base, tucka, mode="static", routes=route, **onnx)
        export(f"tucka, conditioned, {beside}", base, tucka, mode="conditioned", tasks=["a", "b"], routes=route, **onnx)
        export(f"tucka, dynamic, {beside}", base, tucka, mode="dynamic", routing="row", **onnx)
        export(f"tucka, dynamic, batch, {beside}", base, tucka, mode="dynamic", **onnx)
        export(f"lora, static, {beside}", base, [scene.lora], mode="static", **onnx)
        export(f"lora, conditioned, {beside}", base, [scene.lora, scene.lora2], mode="conditioned", **onnx)
    golden = GOLDEN / "ept_bert48"  # traced; the others take the same graph from a file
    export("from a folder", golden / "base", [golden / "adapter"], mode="dynamic", top_k=2)
    print(json.dumps(hashes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
