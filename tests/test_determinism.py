"""The same export in two processes gives the same bytes, whatever order their sets and dicts have.

Run as a script, this file makes the exports of one process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import eptx
from eptx.bundle import read_bundle
from eptx.bundle.origin import Origin, read_origin, write_origin
from eptx.calibration import Search
from eptx.calibration import export_bundle as export
from eptx.errors import UsageError
from eptx.exporter import ExportOptions
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.run import validate_bundle
from eptx.manifest.names import REPORT_FILES
from eptx.runtime.measure import Source
from tests.exporter.validation.contents.files.made import write_wordpieces
from tests.malformed.scene import Scene, make_scene
from tests.support.tiny_bundle import write_tiny

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


def test_two_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same inputs in other folders, named from elsewhere: the same bundle, and nothing in it says where they were.

    The paths are in the file beside it, by which a validation finds them from any folder.
    """
    bundles = []
    for place, named in (("one", False), ("another/place", True)):
        root = tmp_path / place
        root.mkdir(parents=True)
        shutil.copytree(GOLDEN / "ept_bert48" / "base", root / "base")
        shutil.copytree(GOLDEN / "ept_bert48" / "adapter", root / "adapter")
        rows = [{"task": f"task{i % 8}", "text": "a b", "input_ids": [3 + i, 5, 7]} for i in range(16)]
        (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        monkeypatch.chdir(root if named else tmp_path)
        base, adapter = (Path(name) if named else root / name for name in ("base", "adapter"))
        data = [Source(Path("rows.jsonl") if named else root / "rows.jsonl")]
        options = ExportOptions(mode="conditioned", top_k=2, precision=Search(data=data, only="int8"))
        bundles.append(export(base, [adapter], root / "bundle", options).path)
    first, second = ({f.name: f.read_bytes() for f in bundle.iterdir()} for bundle in bundles)
    assert {**first, **dict.fromkeys(REPORT_FILES)} == {**second, **dict.fromkeys(REPORT_FILES)}  # which hold times
    told = [name for name, content in first.items() if str(tmp_path).encode() in content]
    assert told == []
    monkeypatch.chdir("/")
    origin = read_origin(read_bundle(bundles[1]))
    place = tmp_path / "another/place"
    assert (origin.base, origin.adapters) == (str(place / "base"), (str(place / "adapter"),))
    assert origin.data == (str(place / "rows.jsonl"),)
    assert validate_bundle(bundles[1], ValidateOptions(providers=["cpu"])).passed


def test_a_file_of_another_bundle_is_not_believed(tmp_path: Path) -> None:
    one = write_tiny(tmp_path / "one")
    write_origin(one, Origin("/a", None, ("/b",)))
    assert read_origin(one).base == "/a"
    (tmp_path / "two.sources.json").write_bytes((tmp_path / "one.sources.json").read_bytes())
    two = write_tiny(tmp_path / "two", fingerprints={"base": "sha256:2", "adapter": "sha256:1"})
    assert read_origin(two) == Origin()
    (tmp_path / "link").symlink_to(one.path)
    assert read_origin(read_bundle(tmp_path / "link")).base == "/a"
    with pytest.raises(UsageError, match="nothing beside the bundle says where its base is: give --base DIR"):
        validate_bundle(two.path)
    (tmp_path / "two.sources.json").write_text("[]")
    with pytest.raises(UsageError, match=r"two.sources.json: must be a JSON object"):
        read_origin(two)


def _inputs(root: Path) -> Scene:
    root.mkdir()
    scene = make_scene(root)
    write_wordpieces(scene.base, 200)
    (scene.base / "vocab.txt").write_text("a\n")  # companions that are copied
    return scene


def main(root: Path, out: Path) -> None:
    """Exports everything to ``out``, and prints the SHA-256 of every file of every bundle."""
    from eptx.calibration import export_bundle
    from eptx.errors import BundleError
    from eptx.exporter import Route
    from eptx.files.safe_files import hash_file, list_files

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
