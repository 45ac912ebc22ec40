"""Which provider a session gets, and that it says so: by ONNX Runtime's own providers, none of them made up.

The CPU build of ONNX Runtime has no CUDA. Told that it has, it does what onnxruntime-gpu does on a machine without a
GPU: it opens sessions on the CPU and says nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import eptx
from eptx.errors import NotSupportedError, UsageError
from eptx.providers import PROVIDER_CHOICES, PROVIDERS, Provider
from eptx.runtime.generation.decoder import _check_provider
from eptx.runtime.ort import choice, providers, sessions
from eptx.runtime.timing import TimedModel
from eptx.runtime.validation.running.backends import providers_to_validate
from tests.malformed.scene import Cli, Result, check_refusal
from tests.runtime.test_session import ARRAYS
from tests.support.tiny_bundle import write_tiny

AVAILABLE = set(onnxruntime.get_available_providers())
ABSENT = [name for name, provider in PROVIDERS.items() if provider.ort_name not in AVAILABLE]
#: Makes ONNX Runtime believe that it has CUDA, and runs the rest.
PRETEND = """
import sys, onnxruntime
from onnxruntime.capi import onnxruntime_inference_collection as sessions
names = ["CUDAExecutionProvider", *onnxruntime.get_available_providers()]
onnxruntime.get_available_providers = sessions.C.get_available_providers = lambda: names
"""
IF = """
<ir_version: 9, opset_import: ["" : 18]>
g (int64[N] t, float[N] x) => (float[N] y)
{
  zero = Constant <value_int = 0> ()
  negative = Less (t, zero)
  number = Cast <to = 7> (negative)
  largest = ReduceMax <keepdims = 0> (number)
  any = Cast <to = 9> (largest)
  y = If (any) <
    then_branch = a () => (float[N] y1)
      { root = Sqrt (x)  five = Constant <value_float = 5.0> ()  y1 = Mul (root, five) },
    else_branch = b () => (float[N] y2) { y2 = Neg (x) }
  >
}
"""
without_cuda = pytest.mark.skipif("CUDAExecutionProvider" in AVAILABLE, reason="this ONNX Runtime has CUDA")


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capfd)


@pytest.fixture(scope="module")
def for_cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that says that it was exported for CUDA."""
    return write_tiny(tmp_path_factory.mktemp("cuda") / "bundle", "conditioned", tokenizer=True, provider="cuda").path


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A script in a process whose ONNX Runtime believes that it has CUDA."""
    env = {**os.environ, "EPTX_NATIVE": "0"}
    command = [sys.executable, "-c", PRETEND + script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False)


def test_every_name_is_one_of_onnx_runtimes() -> None:
    assert {provider.ort_name for provider in PROVIDERS.values()} <= set(onnxruntime.get_all_providers())
    assert len({provider.ort_name for provider in PROVIDERS.values()}) == len(PROVIDERS)


@pytest.mark.parametrize("name", ABSENT)
def test_one_that_is_not_in_this_build(name: str, bundles: Path, cli: Cli) -> None:
    with pytest.raises(NotSupportedError, match=f"provider {name}: the installed onnxruntime .* is built without it; "):
        eptx.Session(bundles / "static", name)
    for command in (["run", bundles / "static", "good film"], ["bench", bundles / "static"]):
        cli.refuses(5, PROVIDERS[name].install, *command, "--provider", name)


def test_there_is_no_such_provider(bundles: Path, cli: Cli) -> None:
    for name in ("tpu", "CUDA", "", None):
        with pytest.raises(UsageError, match=r"no provider .*; choose one of auto, cpu, cuda, "):
            eptx.Session(bundles / "static", name)  # type: ignore[arg-type]
    assert cli("run", bundles / "static", "good film", "--provider", "tpu").code == 2


@without_cuda
def test_one_that_does_not_start(for_cuda: Path) -> None:
    """Without a look at what the session has, it would answer from the CPU and say CUDA."""
    script = "from eptx.cli import main\nsys.argv[0] = 'eptx'\nmain()"
    for command in (["run", for_cuda, "good film", "--task", "mnli"], ["bench", for_cuda]):
        done = run(script, *command, "--provider", "cuda")
        check_refusal(done_result(done), 5, "provider cuda: it does not start: ")
        assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in done.stderr


@without_cuda
def test_auto_falls_back_with_one_warning(for_cuda: Path, bundles: Path) -> None:
    script = """
import json, eptx
sessions = [eptx.Session(path) for path in (*sys.argv[1:], *sys.argv[1:])]
print(json.dumps([[s.provider, s.info()["provider_reason"]] for s in sessions]))
"""
    done = run(script, for_cuda, bundles / "conditioned")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [provider for provider, _ in said] == ["cpu"] * 4
    assert [reason is None for _, reason in said] == [False, True, False, True]
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "exported for cuda and runs on the CPU: it does not start: " in done.stderr


@without_cuda
def test_the_command_warns_and_answers(for_cuda: Path) -> None:
    done = run("from eptx.cli import main\nmain()", "run", for_cuda, "good film", "--task", "mnli")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mnli  ")
    warning, ran = done.stderr.splitlines()
    assert warning.startswith("warning: provider auto: ")
    assert ran == "provider cpu, no native kernels: switched off by EPTX_NATIVE=0"


@without_cuda
def test_auto_validates_without_one_that_does_not_start() -> None:
    script = "from eptx.runtime.validation.running import backends\nprint(*backends.providers_to_validate(['auto']))"
    done = run(script)
    assert "['cpu']" in done.stdout, done.stderr
    assert "provider cuda: not validated: it does not start: " in done.stdout
    assert providers_to_validate(["auto"]) == (["cpu"], [])


def done_result(done: subprocess.CompletedProcess[str]) -> Result:
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif("AzureExecutionProvider" not in AVAILABLE, reason="this ONNX Runtime has no provider without nodes")
def test_one_that_takes_no_node(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure's provider starts and takes no operator: its sessions have it, and run on the CPU."""
    model = eptx.read_bundle(bundles / "static").model
    monkeypatch.setitem(PROVIDERS, "azure", Provider("AzureExecutionProvider", "", ""))  # type: ignore[arg-type]
    session = sessions.start_session(str(model), None, "azure")
    assert providers.has_started(session, "azure")
    assert set(providers.nodes_by_provider(session) or ()) == {"cpu"}
    with pytest.raises(NotSupportedError, match="provider azure: it takes no node of this model"):
        sessions.open_session(str(model), None, "azure")


def test_what_a_session_and_a_timing_say(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPTX_NATIVE", "0")
    told = eptx.Session(bundles / "conditioned").info(), TimedModel(bundles / "conditioned").info()
    for info in told:
        assert info["provider"] == "cpu" and info["provider_reason"] is None and info["nodes"] is None
        assert info["kernels"] == {"running": False, "reason": "switched off by EPTX_NATIVE=0"}


def test_bench_says_what_ran(bundles: Path, cli: Cli) -> None:
    command = ["bench", bundles / "static", "--against", bundles / "dynamic", "--shapes", "1x4", "--pairs", "1"]
    result = cli(*command, "--against-provider", "cpu")
    assert result.code == 0
    assert [line.partition(",")[0] for line in result.err.splitlines()] == [
        "static: provider cpu",
        "dynamic: provider cpu",
    ]
    result = cli(*command, "--json", "--quiet")
    assert result.err == ""
    assert [model["provider"] for model in json.loads(result.out)["models"]] == ["cpu", "cpu"]
    cli.refuses(2, "--against-provider is for --against", "bench", bundles / "static", "--against-provider", "cpu")


def test_a_provider_on_which_decoders_do_not_generate() -> None:
    class Genai:
        @staticmethod
        def is_cuda_available() -> bool:
            return False

    _check_provider(Genai, "cpu")
    with pytest.raises(NotSupportedError, match="provider openvino: decoders generate on cpu, cuda only"):
        _check_provider(Genai, "openvino")
    with pytest.raises(NotSupportedError, match="pip install onnxruntime-genai-cuda"):
        _check_provider(Genai, "cuda")


def test_the_pages_have_every_provider() -> None:
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text(encoding="utf-8")
    for name in PROVIDER_CHOICES:
        assert f"| `{name}` |" in page, name


needs_openvino = pytest.mark.skipif(
    "OpenVINOExecutionProvider" not in AVAILABLE, reason="onnxruntime-openvino is not installed"
)


@needs_openvino
def test_openvino_computes_the_same(bundles: Path) -> None:
    for mode in ("static", "conditioned", "dynamic"):
        session = eptx.Session(bundles / mode, "openvino", threads=1)
        task = None if mode == "static" else ["stsb", "sst2", "mnli"]
        got, want = session.run(ARRAYS, task), eptx.Session(bundles / mode, "cpu").run(ARRAYS, task)
        for name in got:
            np.testing.assert_allclose(got[name], want[name], atol=1e-5)
        info = session.info()
        assert info["provider"] == "openvino" and info["nodes"]["openvino"] > 0
        assert not info["kernels"]["running"]


@needs_openvino
def test_openvino_is_asked_for_float32_and_threads(bundles: Path) -> None:
    session = sessions.open_session(
        str(eptx.read_bundle(bundles / "static").model), sessions.session_options(1), "openvino"
    )
    assert session.get_providers()[0] == "OpenVINOExecutionProvider"
    (_, options), _ = providers.execution_providers("openvino", 1)
    assert options == {"device_type": "CPU", "precision": "FP32", "num_of_threads": "1"}


@needs_openvino
def test_openvino_computes_if_wrongly() -> None:
    """If this fails, `wrong` in the table can go."""
    model = onnx.parser.parse_model(IF).SerializeToString()
    feeds = [{"t": np.array([t], np.int64), "x": np.ones(1, np.float32)} for t in (0, -1)]

    def answers(provider: str) -> list[float]:
        session = sessions.start_session(model, None, provider)
        return [session.run(None, feed)[0].item() for feed in feeds]

    assert answers("cpu") == [-1, 5]
    assert answers("openvino") == [-1, -1]
    with pytest.raises(NotSupportedError, match="provider openvino: it computes the operator If wrongly"):
        sessions.open_session(model, None, "openvino")


def test_auto_never_takes_another(bundles: Path) -> None:
    assert choice.choose_provider("auto", "cpu") == choice.Choice("cpu")
