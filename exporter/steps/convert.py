"""From what a method's released code saves to an adapter's folder that an export reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from eptx._one_line import shown, some
from eptx.errors import AdapterError, EptxError, UsageError
from eptx.exporter.adapters.checkpoint import CONFIG, WEIGHTS
from eptx.exporter.adapters.tensor_files.names import plain_names
from eptx.exporter.adapters.tensor_files.safetensors import read_tensors
from eptx.exporter.adapters.tensor_files.unpickle import unpickle
from eptx.exporter.folders.tensor_file import PICKLES, find_tensor_file
from eptx.exporter.methods.method import conversions, methods
from eptx.exporter.methods.released import Conversion
from eptx.files.publish import Staging
from eptx.files.strict_json import read_json_object

#: What anybody may say of an adapter, whatever its method.
_OF_ANY = ("task_type", "base_model_name_or_path")


@dataclass(frozen=True)
class Converted:
    """What was converted.

    Attributes:
        method: its title. source: the file that was read. tensors: how many were written.
    """

    method: str
    source: Path
    tensors: int


def convert_adapter(source: Path, out: Path, settings: Mapping[str, Any] | None = None) -> Converted:
    """Rewrites the files of a method's released code as safetensors with a configuration.

    A pickle is read with torch's ``weights_only`` loader, in a process with limits of memory and time.

    Args:
        source: the folder, or the file with the tensors; ``adapter_config.json`` may be beside it.
        out: the new folder.
        settings: what the files do not say, by the names that the messages have.

    Raises:
        UsageError: a setting is missing, unknown, or contradicts the files; or `out` is there already.
        AdapterError: there is no such file, it is damaged, or of no method that is converted.
        NotSupportedError: a variant that eptx does not reproduce.
        LimitError: reading takes more memory or time than an adapter does.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already: give another folder")
    file = find_tensor_file(source)
    stored = unpickle(file) if file.suffix in PICKLES else read_tensors(file)
    beside = file.parent / CONFIG
    config = read_json_object(beside, error=AdapterError) if beside.is_file() else {}
    plain = plain_names(stored, [method.tensor_part for method in methods() if method.conversions], (), file.name)
    tensors = {plain[name]: array for name, array in stored.items()}
    conversion = _conversion(config, tensors, file)
    said = {**config, **_settings(conversion.settings, config, dict(settings or {}), file)}
    try:
        written, own = conversion.convert(tensors, said)
    except EptxError as error:
        raise type(error)(f"{file.name}: {error}") from None
    configuration = {**_kept(said), **own}
    staging = Staging(out)
    try:
        saved = {f"base_model.model.{name}": np.array(array, order="C") for name, array in written.items()}
        save_file(saved, staging.folder / WEIGHTS)
        (staging.folder / CONFIG).write_text(json.dumps(configuration, indent=2) + "\n")
        staging.publish()
    finally:
        staging.close()
    return Converted(conversion.title, file, len(written))


def _conversion(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], file: Path) -> Conversion:
    for conversion in conversions():
        if conversion.matches(config, list(tensors)):
            return conversion
    titles = ", ".join(conversion.title for conversion in conversions())
    raise AdapterError(
        f"{file}: its tensors ({some(list(tensors), most=2)}) are of none of the methods that are converted "
        f"({titles}); what PEFT itself saved is exported as it is, a .bin with --allow-pickle"
    )


def _settings(
    wanted: Mapping[str, str], config: Mapping[str, Any], given: dict[str, Any], file: Path
) -> dict[str, Any]:
    """The settings that the result must have, and what else was given."""
    unknown = sorted(given.keys() - wanted.keys() - set(_OF_ANY))
    if unknown:
        raise UsageError(f"--set {unknown[0]}: is not asked for; known are {some([*wanted, *_OF_ANY], most=8)}")
    for key, value in given.items():
        if config.get(key) not in (None, value):
            raise UsageError(f"--set {key}={value} contradicts {CONFIG}, which says {shown(config[key])}")
    found = {key: config[key] for key in wanted if config.get(key) is not None} | given
    missing = {key: what for key, what in wanted.items() if key not in found}
    if missing:
        asked = "; ".join(f"{key} ({what})" for key, what in missing.items())
        options = " ".join(f"--set {key}=VALUE" for key in missing)
        raise UsageError(f"{file.name} does not say {asked}: give {options}")
    return found


def _kept(config: Mapping[str, Any]) -> dict[str, Any]:
    """What PEFT writes into every configuration of a trained class."""
    return {key: config[key] for key in (*_OF_ANY, "auto_mapping") if config.get(key) is not None}
