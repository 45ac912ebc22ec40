"""The checks of a provider, exercised on the CPU's."""

from __future__ import annotations

import onnxruntime
import pytest

from tests.providers.run_all import main


def test_the_checks_pass_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--provider", "cpu", "--only", "tucka_bert48", "other"]) == 0
    out = capsys.readouterr().out
    assert "ok    tucka_bert48 dynamic, row fp32: validate" in out
    assert out.splitlines()[-1] == "13 passed, 0 failed, 0 refused"


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this machine has CUDA")
def test_a_machine_without_cuda_is_exit_5(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 5
    assert "is built without it" in capsys.readouterr().err


def test_a_failed_check_is_counted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.providers.run_all.TOLERANCE", 0.0)
    monkeypatch.setattr("tests.providers.run_all._modes", lambda *_: iter(()))
    assert main(["--provider", "cpu", "--only", "tucka_bert48"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  tucka_bert48: a session gives the released logits: batch 0" in out
    assert out.splitlines()[-1] == "0 passed, 1 failed, 0 refused"
