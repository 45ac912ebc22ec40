"""ONNX Runtime's execution providers: what eptx calls each, what brings it, and how eptx sets it.

All that differs between providers stands in this table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Provider:
    """One execution provider.

    Attributes:
        ort_name: ONNX Runtime's name of it.
        install: what brings an ONNX Runtime that has it.
        needs: what it needs to start beside that.
        options: the provider options that eptx sets: products as exact as those that a bundle was validated for.
        threads: the provider option for the threads of an operator; None: it takes ONNX Runtime's.
        library: names the file of ONNX Runtime that holds it; None: it is in ONNX Runtime itself.
        preload: whether Python packages hold libraries of it, which ``onnxruntime.preload_dlls`` finds.
        wrong: the operators that it takes and computes wrongly: a model in which it takes one is refused.
        kernels: whether eptx's native kernels run on it.
        exact_integers: whether its products of 8-bit integers are known to be exact.
        device: where its values may stay from one run to the next, as ``OrtValue`` names it.
        genai: the package of ONNX Runtime GenAI that generates on it; None: eptx does not generate with GenAI on it.
    """

    ort_name: str
    install: str
    needs: str
    options: Mapping[str, str] = field(default_factory=dict)
    threads: str | None = None
    library: str | None = None
    preload: bool = False
    wrong: frozenset[str] = frozenset()
    kernels: bool = False
    exact_integers: bool = False
    device: str = "cpu"
    genai: str | None = None


#: Where every node runs that a provider leaves; always there.
CPU = "cpu"

_GPU = "pip uninstall onnxruntime, then pip install 'eptx[gpu]'"

#: eptx's name -> the provider.
PROVIDERS: Mapping[str, Provider] = {
    CPU: Provider(
        "CPUExecutionProvider",
        install="pip install 'eptx[cpu]'",
        needs="nothing",
        kernels=True,
        genai="onnxruntime-genai",
    ),
    "cuda": Provider(
        "CUDAExecutionProvider",
        install=_GPU,
        needs="an NVIDIA GPU with its driver, and CUDA's libraries: pip install 'onnxruntime-gpu[cuda,cudnn]'",
        # by default it multiplies float32 with 10 bits of mantissa (TF32), a thousand times more coarsely
        options={"use_tf32": "0"},
        library="cuda",
        preload=True,
        exact_integers=True,
        device="cuda",
        genai="onnxruntime-genai-cuda",
    ),
    "tensorrt": Provider(
        "TensorrtExecutionProvider",
        install=_GPU,
        needs="what provider cuda needs, and the libraries of NVIDIA TensorRT",
        library="tensorrt",
        preload=True,
    ),
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        install="pip uninstall onnxruntime, then pip install 'eptx[openvino]'",
        needs="an Intel or AMD processor",
        # said, though onnxruntime-openvino 1.24 does so by itself: OpenVINO alone prefers bfloat16 where there is AMX
        options={"device_type": "CPU", "precision": "FP32"},
        threads="num_of_threads",
        library="openvino",
        wrong=frozenset({"If"}),  # 1.24.1 keeps the branch of the first run of a shape
    ),
    "directml": Provider(
        "DmlExecutionProvider",
        install="on Windows: pip uninstall onnxruntime, then pip install onnxruntime-directml",
        needs="Windows and a GPU for DirectX 12",
    ),
    "coreml": Provider(
        "CoreMLExecutionProvider",
        install="on macOS: pip install onnxruntime",
        needs="macOS 12 or newer",
    ),
    "xnnpack": Provider(
        "XnnpackExecutionProvider",
        install="build ONNX Runtime with --use_xnnpack",
        needs="nothing",
        threads="intra_op_num_threads",
    ),
    "qnn": Provider(
        "QNNExecutionProvider",
        install="build ONNX Runtime with --use_qnn",
        needs="a Qualcomm processor and the libraries of QNN",
        library="qnn",
    ),
}

#: What a caller may ask for; "auto" is the provider that a bundle was exported for, where it starts, or else the CPU.
PROVIDER_CHOICES = ("auto", *PROVIDERS)


def keep_private() -> None:
    """Has ONNX Runtime and GenAI send nothing about this program and its models, unless the variable says otherwise.

    From 1.29 on, ONNX Runtime for Linux reports sessions and hashes of models to its maker. It reads the variable when
    it is imported, so a program that imports it before eptx uses it decides for itself.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
