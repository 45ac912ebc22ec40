"""libeptx refuses what the Python runtime refuses: its status is Python's exit code; its words are its own.

The tables are those of the Python tests. Cases that a C interface cannot express are listed with the reason.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import eptx
from eptx import read_bundle
from eptx.bundle import Task
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from tests.eptx.test_bundle import DAMAGE
from tests.malformed.bundles import test_generation
from tests.malformed.bundles.test_bundles import LIES
from tests.malformed.bundles.test_requests import IDS, REQUESTS, TASKS
from tests.malformed.conftest import pristine, scene  # noqa: F401
from tests.malformed.scene import Scene
from tests.runtime.cpp.library import NativeError, Session, load
from tests.runtime.cpp.verdicts import UNUSED, mend_unused, verdict
from tests.support.tiny_bundle import write_tiny

NO_TOKENIZER = "libeptx takes token ids: it has no tokenizer"
BYTE_ORDER = "a C array has no byte order of its own"
#: case of REQUESTS -> why C cannot express it
NOT_IN_C = {
    "too few tasks": "one name is the task of all rows; see test_too_few_tasks",
    "a task that is a number": "a task is a string",
    "task ids in the other byte order": BYTE_ORDER,
    "the other byte order": BYTE_ORDER,
    "a mask in the other byte order": BYTE_ORDER,
    "rows of different lengths": "an array in C is a rectangle",
    "text without a tokenizer": NO_TOKENIZER,
    "neither arrays nor text": "inputs are arrays",
}
#: cases of LIES that concern the tokenizer
NOT_READ = {"a tokenizer that is none": NO_TOKENIZER, "a tokenizer of bytes": NO_TOKENIZER}
IDS_OF_TEXT = np.array([[2, 5, 7, 3]], np.int64)  # "good film", as the tiny tokenizer has it


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("bundles") / "bundle").path


def _compare(bundle: Path, sound: Path, native: Callable[[], object], python: Callable[[], object]) -> None:
    """Both give the same verdict on a damaged bundle, except for damage in parts that libeptx does not use."""
    load()
    found = verdict(native)
    mended = mend_unused(bundle, sound)
    assert found == verdict(python)
    assert (found == 0) == mended


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", DAMAGE)
def test_damaged(original: Path, tmp_path: Path, name: str, verify: bool) -> None:
    if not verify and name.endswith("flipped"):
        pytest.skip("only its hash tells")
    folder = Path(shutil.copytree(original, tmp_path / "bundle"))
    DAMAGE[name][0](folder)
    _compare(folder, original, lambda: Session(folder, verify=verify), lambda: read_bundle(folder, verify=verify))


@pytest.mark.parametrize("name", [name for name in LIES if name not in NOT_READ])
def test_lies(pristine: Scene, scene: Scene, name: str) -> None:  # noqa: F811
    LIES[name][0](scene)
    inputs = {"input_ids": IDS_OF_TEXT}

    def native() -> object:
        return Session(scene.tiny).run(inputs, "sst2")

    def python() -> object:
        return eptx.Session(scene.tiny).run(inputs, "sst2")

    _compare(scene.tiny, pristine.tiny, native, python)


decoders = test_generation.folder


@pytest.mark.parametrize("name", test_generation.BUNDLES)
def test_generation_bundles(decoders: Path, tmp_path: Path, name: str) -> None:
    sound = decoders / "ept"
    bundle = Path(shutil.copytree(sound, tmp_path / "bundle"))
    test_generation.BUNDLES[name][0](bundle)
    _compare(bundle, sound, lambda: Session(bundle, verify=False), lambda: read_bundle(bundle, verify=False))


@pytest.mark.parametrize("key", [key for key in UNUSED if key != "encoder"])
def test_what_libeptx_does_not_use(original: Path, tmp_path: Path, key: str) -> None:
    """libeptx checks that it is an object, and nothing inside."""
    load()
    bundle = Path(shutil.copytree(original, tmp_path / "bundle"))
    manifest = json.loads((bundle / "eptx.json").read_text())
    verdicts = []
    for value in ({"x": 5}, "x"):
        (bundle / "eptx.json").write_text(json.dumps(manifest | {key: value}))
        verdicts.append((verdict(lambda: read_bundle(bundle)), verdict(lambda: Session(bundle))))
    assert verdicts == [(3, 0), (3, 3)]


@pytest.fixture(scope="module")
def conditioned(pristine: Scene) -> Session:  # noqa: F811
    load()
    return Session(pristine.bundle)


@pytest.mark.parametrize("name", [name for name in REQUESTS if name not in NOT_IN_C])
def test_requests(conditioned: Session, name: str) -> None:
    inputs, task, _ = REQUESTS[name]
    with pytest.raises(NativeError) as e:
        conditioned.run({key: np.asarray(value) for key, value in inputs.items()}, task)
    assert e.value.status == 3
    outputs = {"logits": np.zeros((2, 3), np.float32)}
    with pytest.raises(NativeError) as again:
        conditioned.run_into({key: np.asarray(value) for key, value in inputs.items()}, task, outputs)
    assert (again.value.status, str(again.value)) == (3, str(e.value))
    assert conditioned.run({"input_ids": IDS}, TASKS)[1] == TASKS


def test_too_few_tasks(conditioned: Session) -> None:
    with pytest.raises(NativeError, match="2 tasks for a batch of 3") as e:
        conditioned.run({"input_ids": np.ones((3, 2), np.int64)}, TASKS)
    assert e.value.status == 3


def test_task_ids_with_gaps(tmp_path: Path) -> None:
    """A manifest may leave ids out."""
    load()
    session = Session(write_tiny(tmp_path / "b", tasks=(Task("sst2", 0), Task("stsb", 2))).path)
    with pytest.raises(NativeError, match=r"task_id\[1\] is 1; this bundle has 0, 2$"):
        session.run({"input_ids": IDS, "task_id": np.array([0, 1])})


def test_a_task_to_infer(pristine: Scene, tmp_path: Path) -> None:  # noqa: F811
    load()
    options = ExportOptions(mode="dynamic", top_k=2, base_onnx=pristine.onnx)
    session = Session(export_bundle(pristine.base, [pristine.ept], tmp_path / "b", options).path)
    for ids in ([0, -2], [0, 4]):
        with pytest.raises(NativeError, match=r"input task_id\[1\] is"):
            session.run({"input_ids": IDS, "task_id": np.array(ids)})
    for inferred in (session.run({"input_ids": IDS}), session.run({"input_ids": IDS, "task_id": np.array([-1, -1])})):
        assert set(inferred[1]) <= {"cola", "mnli", "stsb"}
    assert session.run({"input_ids": IDS}, ["auto", "mnli"])[1][1] == "mnli"
    with pytest.raises(NativeError, match="no task 'base'; this bundle has cola, mnli, stsb"):  # the base has no heads
        session.run({"input_ids": IDS}, ["auto", "base"])


def test_a_bundle_without_tasks_to_choose(pristine: Scene, tmp_path: Path) -> None:  # noqa: F811
    load()
    options = ExportOptions(mode="dynamic", base_onnx=pristine.onnx)
    session = Session(export_bundle(pristine.base, [pristine.tucka], tmp_path / "b", options).path)
    with pytest.raises(NativeError, match="does not choose the task by a request"):
        session.run({"input_ids": IDS, "task_id": np.array([0, 0])})
    with pytest.raises(NativeError, match="no task 'base'; this bundle has task0"):
        session.run({"input_ids": IDS}, "base")
    assert session.run({"input_ids": IDS})[1] == ["task0", "task0"]
