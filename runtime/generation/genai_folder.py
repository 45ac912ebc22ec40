"""The folder that GenAI opens instead of a bundle's.

GenAI reads the options of its session from the model's folder, and loads a library of kernels only from there. A bundle
says neither how many threads to use nor where the library is. So a private folder says it while the model loads.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle
from eptx.bundle.genai_config import GENAI_CONFIG
from eptx.errors import BundleError
from eptx.files.strict_json import dump_json, read_json_object
from eptx.providers import CPU, PROVIDERS
from eptx.runtime.ort.kernels import OPERATORS_ENTRY, Kernels
from eptx.runtime.ort.sessions import config_entries

_BUNDLE = "bundle"


@contextlib.contextmanager
def model_folder(bundle: Bundle, provider: str, threads: int | None, kernels: Kernels) -> Iterator[Path]:
    """A folder for ``onnxruntime_genai.Config``, removed afterwards.

    Raises:
        BundleError: the bundle has no ``genai_config.json`` of a decoder.
    """
    with tempfile.TemporaryDirectory(prefix="eptx-") as name:
        folder = Path(name)
        (folder / _BUNDLE).symlink_to(bundle.path, target_is_directory=True)
        if kernels.library is not None:
            shutil.copy(kernels.library, folder)
        config = _config(bundle, _session_options(bundle, provider, threads, kernels))
        (folder / GENAI_CONFIG).write_bytes(dump_json(config))
        yield folder


def _config(bundle: Bundle, options: dict[str, Any]) -> dict[str, Any]:
    """GenAI's configuration: the bundle's description of the model, and our options of session and search."""
    path = bundle.file(GENAI_CONFIG)
    if path is None:
        raise BundleError(f"{GENAI_CONFIG}: missing; GenAI cannot open the bundle")
    config = read_json_object(path, error=BundleError)
    model, search = config.get("model"), config.get("search")
    decoder = model.get("decoder") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(decoder, dict) or not isinstance(search, dict):
        raise BundleError(f"{GENAI_CONFIG}: not the configuration of a decoder")
    generation = bundle.manifest.generation
    assert generation is not None
    shared = search.get("past_present_share_buffer") is True
    ours = {"filename": f"{_BUNDLE}/{bundle.model.name}", "session_options": options}
    ends = {"eos_token_id": list(generation.eos), "pad_token_id": generation.pad}
    return {
        "model": {**model, **ends, "decoder": {**decoder, **ours}},
        "search": {"past_present_share_buffer": shared},
    }


def _session_options(bundle: Bundle, provider: str, threads: int | None, kernels: Kernels) -> dict[str, Any]:
    options: dict[str, Any] = {
        "log_id": "eptx",
        "log_severity_level": 4,  # errors are raised; nothing is printed
        "provider_options": [{provider: dict(PROVIDERS[provider].options)}] if provider != CPU else [],
        **config_entries(bundle),
    }
    if threads is not None:
        options["intra_op_num_threads"] = threads
    if kernels.library is not None:
        options["custom_ops_library"] = kernels.library.name
        options[OPERATORS_ENTRY] = ",".join(sorted(kernels.operators))
    return options
