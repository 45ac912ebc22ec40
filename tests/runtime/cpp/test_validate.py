"""libeptx validates by a proof what Python validates by it: the same numbers, verdicts, table and exit codes."""

from __future__ import annotations

import ctypes as c
import json
import math
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from eptx.bundle import Bundle
from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.runtime.validation.proof.tensors import read_tensors, write_tensors
from eptx.runtime.validation.proof.validate import validate_against_proof
from eptx.runtime.validation.report.text import report_text
from tests.exporter.validation.adapters import write_ept, write_tucka
from tests.exporter.validation.wrong.bases import Bases
from tests.exporter.validation.wrong.kinds import KINDS
from tests.runtime.cpp.library import Environment, NativeError, check, load, program
from tests.support.bundles import copy_bundle

Content = dict[str, Any]

#: Bundles of every mode, kind of router and kind of model that a proof may be of.
HONEST = (
    "bert static",
    "bert",
    "bert fp16",
    "heads",
    "heads mean",
    "bert tucka",
    "bert lily",
    "bert mixlora frozen",
    "int8",
    "int8 static",
    "vit",
    "llama",
    "llama int4",
    "t5",
)
#: Wrong bundles (see `KINDS`) whose verdicts come by every rule: a module's distance, a router's experts, a group, an
#: inferred task, the heads, an output's width, NaN, a model that does not run, the cache of a decoder, an encoder.
WRONG = (
    ("bert", "one number of a bias"),
    ("heads", "another expert"),
    ("heads", "two heads swapped"),
    ("heads", "padded labels not zero"),
    ("heads", "not a number in a head"),
    ("heads", "a task's label count"),
    ("heads mean", "one expert of two"),
    ("heads mean", "the least similar task inferred"),
    ("bert tucka", "centroids out of order"),
    ("bert tucka", "body of TuckerDelta"),
    ("bert tucka frozen", "two groups swapped in a module"),
    ("int8", "a scale doubled"),
    ("int8 static", "activations x 0.01"),
    ("llama", "rotary cache cut at 210"),
    ("llama", "experts' weights swapped"),
    ("llama", "adapter off while decoding"),
    ("t5", "an unadapted weight of an encoder"),
)
MOST = 5_000_000  # bytes of the program


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    program("eptx-validate")
    return Bases(tmp_path_factory.mktemp("bases"))


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The program."""
    command = [str(program("eptx-validate")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **variables})


def differences(wanted: Any, found: Any, at: str = "") -> Iterator[str]:
    """Where two reports are not the same; numbers may differ by a millionth."""
    if isinstance(wanted, dict) and isinstance(found, dict) and wanted.keys() == found.keys():
        for key in wanted:
            yield from differences(wanted[key], found[key], f"{at}.{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from differences(one, other, f"{at}[{index}]")
    elif isinstance(wanted, float) and type(found) in (int, float):
        if not math.isclose(wanted, found, rel_tol=1e-6):
            yield f"{at}: {wanted} {found}"
    elif wanted != found:
        yield f"{at}: {wanted} {found}"


def of_both(report: Mapping[str, Any], operators: set[str]) -> dict[str, Any]:
    """A report without times, on the backends that both have."""
    kept = {key: value for key, value in report.items() if key != "seconds"}
    return kept | {"providers": [each for each in report["providers"] if each["operators"] in operators]}


def compare(bundle: Path, proof: Path) -> dict[str, Any]:
    """Both reports of a bundle, which must be the same."""
    by_python = validate_against_proof(bundle, proof, ["cpu"])
    done = run(bundle, proof, "--json")
    assert done.stdout, done.stderr
    wanted, found = by_python.to_json(), json.loads(done.stdout)
    operators = {each["operators"] for each in wanted["providers"]} & {each["operators"] for each in found["providers"]}
    assert operators & {"functions", "standard"}
    assert [*differences(of_both(wanted, operators), of_both(found, operators))] == []
    assert done.returncode == (0 if by_python.passed else 4)
    assert done.stderr == ("" if by_python.passed else f"error: {by_python.reason}\n")
    return dict(found)


@pytest.mark.parametrize("name", HONEST)
def test_the_report_is_pythons(bases: Bases, name: str) -> None:
    report = compare(bases.bundle(name).path, bases.proof(name))
    assert report["passed"]
    ratios = [m["ratio"] for each in report["providers"] for task in each["tasks"] for m in task["modules"].values()]
    assert len(ratios) > 1 and all(0 < ratio < 10 for ratio in ratios)


@pytest.mark.parametrize("name", ["tucka", "ept", "encoder"])
def test_generators_that_choose(bases: Bases, tmp_path: Path, name: str) -> None:
    """Route and task are chosen for the prompt and kept; the routers of an encoder choose in its graph."""
    base = "t5" if name == "encoder" else "llama"
    shop, shapes = bases.shop(base), bases.shapes(base)
    if name == "tucka":
        adapter = write_tucka(shop.path(), shapes, seed=3, tasks=("x", "y"), rank=4)
        bundle = shop.export(adapter, mode="dynamic", routing="prompt")
    else:
        adapter = write_ept(shop.path(), shapes, seed=5, tasks=3, sizes=(2, 2, 4, 4), rank=4, strength=0.3)
        bundle = shop.export(adapter, mode="conditioned" if name == "encoder" else "dynamic", top_k=2)
    proof = tmp_path / "proof"
    assert validate_bundle(bundle.path, ValidateOptions(providers=["cpu"], record=proof)).passed
    assert compare(bundle.path, proof)["passed"]

    def other(content: Content, arrays: dict[str, np.ndarray]) -> None:
        for batch in content["batches"]:  # another group, of every call
            batch["groups"] = [
                {key: [1 - own for own in group] for key, group in call.items()} for call in batch["groups"]
            ]
        for table in content["experts"]:
            own = f"experts.{table['module']}.experts"
            arrays[own] = arrays[own][::-1].copy()

    assert not compare(bundle.path, rewritten(proof, tmp_path / "other", other))["passed"]


@pytest.mark.parametrize(("bundle", "name"), WRONG, ids=lambda given: given)
def test_a_wrong_bundle_fails_as_in_python(bases: Bases, bundle: str, name: str) -> None:
    kind = next(kind for kind in KINDS if (kind.bundle, kind.name) == (bundle, name))
    report = compare(bases.copy(bundle, kind.damage), bases.proof(bundle))
    assert not report["passed"]


def sampled_less(content: Content, arrays: dict[str, np.ndarray]) -> None:
    """A proof of "heads" with at most three numbers of each place, and logits that lack a label or have one more."""
    for number, batch in enumerate(content["batches"]):
        for name in batch["modules"]:
            values = arrays[f"batches.{number}.modules.{name}"]
            places, width = values.shape
            index = (np.arange(places)[:, None] * 3 + np.arange(3)) % width
            less = np.take_along_axis(values, index, axis=1)
            less[::5, 1] = np.nan
            arrays[f"batches.{number}.modules.{name}"] = less
        logits = arrays[f"batches.{number}.outputs.logits"]
        more = np.concatenate([logits, np.zeros_like(logits[:, :1])], axis=1)
        changed = logits[:, :-1].copy() if number % 2 == 0 else more
        arrays[f"batches.{number}.outputs.logits"] = changed
        batch["outputs"]["logits"][-1] = changed.shape[1]


def test_a_sample_and_labels_of_other_tasks(bases: Bases) -> None:
    path = rewritten(bases.proof("heads"), bases.proof("heads").with_name("less.proof"), sampled_less)
    report = compare(bases.bundle("heads").path, path)
    found = {task["task"]: task["failed_at"] for task in report["providers"][0]["tasks"]}
    assert found == {"cola": None, "mnli": "task_heads", "stsb": None}  # only mnli has a third label


def test_what_the_rows_say(bases: Bases) -> None:
    """Rows that are set aside, and a task that nothing was seen of."""
    content, arrays = read_tensors(bases.proof("heads"))
    tasks = [np.array(batch["tasks"]) for batch in content["batches"]]
    for number, names in enumerate(tasks):
        arrays[f"batches.{number}.compared"] = names != "cola"
    content["effect"] = [[*row[:3], row[3], 0.0, 0.0] for row in content["effect"] if row[0] == "mnli"]
    content["noise"] = [[*row[:4], 0.0, 0.0] if row[1] == "output" else row for row in content["noise"]]
    content["unclear"] = {"stsb": content["models"]["order"][0]}
    path = bases.proof("heads").with_name("rows.proof")
    write_tensors(path, content, arrays)
    report = compare(bases.bundle("heads").path, path)
    found = {task["task"]: task["undecided"] for task in report["providers"][0]["tasks"]}
    assert found["cola"] == "rounding decides what a router chooses for every one of its rows"
    assert "the adapter's own effect is 0 noise floors" in found["mnli"]
    assert "rounding decides which experts" in found["stsb"]
    assert not report["passed"]


def test_a_tie_is_no_other_choice(bases: Bases) -> None:
    content, arrays = read_tensors(bases.proof("heads"))
    module = content["experts"][0]["module"]
    arrays[f"experts.{module}.experts"] = arrays[f"experts.{module}.experts"][::-1].copy()
    for tied, verdict in ((False, "fail"), (True, "undecided")):
        arrays[f"experts.{module}.tied"] = np.full(3, tied)
        path = bases.proof("heads").with_name("tied.proof")
        write_tensors(path, content, arrays)
        report = compare(bases.bundle("heads").path, path)
        verdicts = {task["verdict"] for each in report["providers"] for task in each["tasks"]}
        assert verdict in verdicts and verdicts <= {verdict, "pass"}


def test_a_greedy_token_that_differs(bases: Bases) -> None:
    """It is shown, and does not count; the other token may be among the largest or not."""
    content, arrays = read_tensors(bases.proof("llama"))
    number = next(index for index, batch in enumerate(content["batches"]) if batch["greedy"])
    own = f"batches.{number}.outputs.logits.largest"
    swapped = arrays[own].copy()
    swapped[::3, :2] = swapped[::3, 1::-1]
    arrays[own] = swapped
    path = bases.proof("llama").with_name("greedy.proof")
    write_tensors(path, content, arrays)
    report = compare(bases.bundle("llama").path, path)
    tasks = report["providers"][0]["tasks"]
    assert report["passed"] and any(0 < task["greedy"]["agreement"] < 1 for task in tasks)
    first = next(task["greedy"]["first_disagreement"] for task in tasks if task["greedy"]["agreement"] < 1)
    assert first["reference"] != first["bundle"]


def test_the_table_is_pythons(bases: Bases, tmp_path: Path) -> None:
    damage = next(kind.damage for kind in KINDS if kind.bundle == "heads" and kind.name == "two heads swapped")
    for name, folder in (("heads", bases.bundle("heads").path), ("heads", bases.copy("heads", damage))):
        report = validate_against_proof(folder, bases.proof(name), ["cpu"])
        if len(report.providers) == 1:
            pytest.skip("the kernels for Python are not built")
        wanted = [line for line in report_text(report).splitlines() if not line.startswith("took ")]
        found = [line for line in run(folder, bases.proof(name)).stdout.splitlines() if not line.startswith("took ")]
        assert found == wanted
    table = run(bases.bundle("llama").path, bases.proof("llama")).stdout
    assert re.search(r"^task .* greedy +rows +verdict$", table, re.MULTILINE)
    assert re.search(r"^task0 .* 100\.0% of \d+ ", table, re.MULTILINE)


def test_one_flipped_weight(bases: Bases) -> None:
    bundle, name = bases.bundle("heads"), "encoder.layer.0.attention.self.value"

    def change(graph: ir.Graph) -> None:
        weight = next(v for k, v in graph.initializers.items() if k.endswith("layer.0.attention.self.value.weight"))
        array = weight.const_value.numpy().copy()  # type: ignore[union-attr]
        array[7, 11] *= -1
        weight.const_value = ir.tensor(array, name=weight.name)

    wrong = bases.shop("bert bare").edited(bundle, change)
    done = run(wrong.path, bases.proof("heads"))
    assert done.returncode == 4
    assert re.search(
        rf"^fail: task mnli fails at first drifting module (bert\.)?{re.escape(name)}: ", done.stdout, re.M
    )
    assert re.search(rf"^error: .*task cola fails at first drifting module (bert\.)?{re.escape(name)}: ", done.stderr)


def test_a_damaged_bundle_is_refused(bases: Bases, tmp_path: Path) -> None:
    folder = copy_bundle(bases.bundle("heads").path, tmp_path / "copy")
    model = bytearray((folder / "model.onnx").read_bytes())
    model[-100] ^= 1
    (folder / "model.onnx").write_bytes(model)
    done = run(folder, bases.proof("heads"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: model.onnx: its content does not match its SHA-256")
    assert run(tmp_path / "none", bases.proof("heads")).returncode == 3


def test_a_proof_that_is_none(bases: Bases, tmp_path: Path) -> None:
    bundle, proof = bases.bundle("heads").path, bases.proof("heads")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("a" * 100)
    for path, said in (
        (tmp_path / "absent", "cannot be read"),
        (tmp_path, "not a regular file"),
        (tmp_path / "empty", "not a proof"),
        (tmp_path / "text", "not a proof"),
        (bases.proof("bert tucka"), "is the proof of another bundle: its fingerprints differs"),
    ):
        done = run(bundle, path)
        assert (done.returncode, done.stdout) == (3, ""), path
        assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    data = proof.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.6, 0.999):
        at = int(share * len(data))
        cut, flipped = tmp_path / "cut", tmp_path / "flipped"
        cut.write_bytes(data[:at])
        flipped.write_bytes(data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :])
        for path in (cut, flipped):
            done = run(bundle, path)
            assert done.returncode == 3 and done.stdout == "", path
            assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def rewritten(proof: Path, to: Path, change: Callable[[Content, dict[str, np.ndarray]], None]) -> Path:
    """A proof that says something else, with the right digest."""
    content, arrays = read_tensors(proof)
    change(content, arrays)
    write_tensors(to, content, arrays)
    return to


def _of_another_version(content: Content, arrays: dict[str, np.ndarray]) -> None:
    content["version"] = 2


def _with_a_field_more(content: Content, arrays: dict[str, np.ndarray]) -> None:
    content["more"] = 1


def _without_batches(content: Content, arrays: dict[str, np.ndarray]) -> None:
    content["batches"] = []


def _of_another_shape(content: Content, arrays: dict[str, np.ndarray]) -> None:
    content["batches"][0]["outputs"]["logits"][0] += 1


def _huge(content: Content, arrays: dict[str, np.ndarray]) -> None:
    modules = content["batches"][0]["modules"]
    name = next(iter(modules))
    modules[name] = [modules[name][0], modules[name][1], 1 << 30, 1 << 30]


def _of_fewer_numbers(content: Content, arrays: dict[str, np.ndarray]) -> None:
    arrays["batches.0.outputs.logits"] = arrays["batches.0.outputs.logits"][:-1].copy()


def _of_fewer_rows(content: Content, arrays: dict[str, np.ndarray]) -> None:
    arrays["batches.0.compared"] = arrays["batches.0.compared"][:-1].copy()


def _with_a_weight_elsewhere(content: Content, arrays: dict[str, np.ndarray]) -> None:
    model = onnx.ModelProto()
    model.ParseFromString(arrays["model.added"].tobytes())
    weight = model.graph.initializer.add()
    weight.name, weight.data_location = "stolen", onnx.TensorProto.EXTERNAL
    weight.dims.append(1)
    weight.data_type = onnx.TensorProto.FLOAT
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    arrays["model.added"] = np.frombuffer(model.SerializeToString(), np.uint8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_of_another_version, "this eptx reads version 1: record it anew"),
        (_with_a_field_more, "unknown field more"),
        (_without_batches, "has no batches"),
        (_of_another_shape, "is no sample of its shape"),
        (_huge, "is no sample of its shape"),
        (_of_fewer_numbers, "is no sample of its shape"),
        (_of_fewer_rows, "does not say which rows are compared"),
        (_with_a_weight_elsewhere, "which is not a file of the bundle"),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_a_proof_that_says_something_else_is_refused(
    bases: Bases, tmp_path: Path, change: Callable[[Content, dict[str, np.ndarray]], None], said: str
) -> None:
    done = run(bases.bundle("heads").path, rewritten(bases.proof("heads"), tmp_path / "p", change))
    assert (done.returncode, done.stdout) == (3, "")
    assert re.search(said, done.stderr) and done.stderr.count("\n") == 1, done.stderr


def test_nothing_in_a_proof_ends_the_program(bases: Bases, tmp_path: Path) -> None:
    """Arrays and fields of a right proof, changed at random, with the right digest."""
    draw = random.Random(1)

    def change(content: Content, arrays: dict[str, np.ndarray]) -> None:
        name = draw.choice([*arrays])
        array = arrays[name].copy()
        if draw.random() < 0.3:
            array = array[: draw.randrange(len(array) + 1)].copy()
        elif array.size:
            odd = (0, 1, -1, 120, np.iinfo(np.int64).max) if array.dtype.kind in "iub" else (0.0, np.nan, np.inf, 1e300)
            array.reshape(-1)[draw.randrange(array.size)] = np.array(draw.choice(odd)).astype(array.dtype)
        arrays[name] = array
        place: Any = content
        while True:
            keys = [*place] if isinstance(place, dict) else [*range(len(place))]
            if not keys:
                return
            key = draw.choice(keys)
            if isinstance(place[key], dict | list) and draw.random() < 0.8:
                place = place[key]
                continue
            place[key] = draw.choice([None, -1, 0, 1, 3, 1 << 40, "x", [], {}, 1.5, True, [[1]], {"a": 1}])
            return

    for name in ("heads", "llama"):
        codes = set()
        for _ in range(15):
            proof = rewritten(bases.proof(name), tmp_path / "p", change)
            done = run(bases.bundle(name).path, proof, "--threads", 1)
            codes.add(done.returncode)
            assert done.returncode in (0, 3, 4, 5, 6), done
            assert done.returncode == 0 or done.stderr.splitlines()[-1].startswith("error: ")
        assert 3 in codes


def test_its_options(bases: Bases) -> None:
    bundle, proof = bases.bundle("heads").path, bases.proof("heads")
    off = json.loads(run(bundle, proof, "--json", "--kernels", "off", "--threads", "1").stdout)
    assert [each["operators"] for each in off["providers"]] == ["functions"]
    unset = json.loads(run(bundle, proof, "--json", EPTX_NATIVE="0").stdout)
    assert [each["operators"] for each in unset["providers"]] == ["functions"]
    for wrong in (
        [bundle],
        [bundle, proof, proof],
        [bundle, proof, "--kernels", "x"],
        [bundle, proof, "--threads", "x"],
        [bundle, proof, "--threads", "5000"],
        [bundle, proof, "--threads"],
        [bundle, proof, "--data"],
    ):
        done = run(*wrong)
        assert (done.returncode, done.stdout) == (2, ""), wrong
        assert re.search("^error: ", done.stderr, re.MULTILINE)
    assert run("--version").stdout == f"eptx-validate {load_version()}\n"
    assert "Exits with 0 where the bundle passes" in run("--help").stdout


def load_version() -> str:
    """What libeptx says that it is."""
    text: bytes = load().eptx_version()
    return text.decode()


def validated(bundle: Bundle, proof: Path, kernels: int = 0) -> tuple[bool, dict[str, Any]]:
    """By the C interface: whether it passed, and the report."""
    library, options, made = load(), c.c_void_p(), c.c_void_p()
    environment = Environment()
    check(library, library.eptx_options_create, c.byref(options))
    library.eptx_options_set_threads(options, c.c_int32(1))
    library.eptx_options_set_kernels(options, c.c_int32(kernels))
    library.eptx_validation_report.restype = c.c_char_p
    try:
        paths = os.fsencode(bundle.path), os.fsencode(proof)
        check(library, library.eptx_validate, environment.value, *paths, options, c.byref(made))
        passed = library.eptx_validation_passed(made) == 1
        return passed, json.loads(library.eptx_validation_report(made))
    finally:
        library.eptx_validation_free(made)
        library.eptx_options_free(options)


def test_the_c_interface(bases: Bases) -> None:
    bundle, proof = bases.bundle("heads"), bases.proof("heads")
    passed, report = validated(bundle, proof)
    assert passed and report["passed"]
    wanted = json.loads(run(bundle.path, proof, "--json", "--threads", "1").stdout)
    assert [*differences(wanted | {"seconds": 0}, report | {"seconds": 0})] == []
    with pytest.raises(NativeError, match="is the proof of another bundle") as refused:
        validated(bundle, bases.proof("bert tucka"))
    assert refused.value.status == 3
    with pytest.raises(NativeError, match="kernels must be") as refused:
        validated(bundle, proof, kernels=7)
    assert refused.value.status == 2
    library, made = load(), c.c_void_p(1)
    with pytest.raises(NativeError, match="environment is NULL") as refused:
        check(library, library.eptx_validate, None, b"x", b"y", None, c.byref(made))
    assert refused.value.status == 2 and not made.value
    assert library.eptx_validation_passed(None) == 0
    library.eptx_validation_report.restype = c.c_char_p
    assert library.eptx_validation_report(None) == b""
    library.eptx_validation_free(None)


def test_it_is_small(tmp_path: Path) -> None:
    """What a device needs beside ONNX Runtime and the system's C library."""
    tools = shutil.which("strip"), shutil.which("readelf")
    if None in tools:
        pytest.skip("strip and readelf are needed")
    stripped = tmp_path / "eptx-validate"
    subprocess.run(["strip", "-o", stripped, program("eptx-validate")], check=True)
    assert stripped.stat().st_size <= MOST
    found = subprocess.run(["readelf", "-d", stripped], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED.*\[(\w+)[.-]", found))
    assert "libonnxruntime" in needed
    assert needed <= {"libonnxruntime", "libc", "libm", "ld", "libcrypto"}
