"""What ``genai_config.json`` may say. GenAI reads the file itself when it opens a bundle without eptx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eptx.errors import BundleError
from eptx.manifest.names import EXPORT_PROVIDERS, MODEL_FILE

GENAI_CONFIG = "genai_config.json"
#: The first loads a library, the second writes a file.
_REFUSED = ("custom_ops_library", "enable_profiling")


def check_genai_config(config: Any) -> None:
    """Refuses a configuration that makes GenAI load anything but the bundle's model.

    Raises:
        BundleError: it names a library, another model, or an execution provider that eptx does not export for.
    """
    for key, value in _settings(config):
        if key in _REFUSED:
            raise BundleError(f"{GENAI_CONFIG}: sets {key}, which a bundle must not")
        if key == "filename" and value != MODEL_FILE:
            raise BundleError(f"{GENAI_CONFIG}: names a model that is not {MODEL_FILE}")
        if key == "provider_options" and not _is_known(value):
            raise BundleError(
                f"{GENAI_CONFIG}: names an execution provider that is not one of {', '.join(EXPORT_PROVIDERS)}"
            )


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every object, with its value."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _is_known(options: Any) -> bool:
    """Whether a list of objects, provider by options, names known providers only."""
    return isinstance(options, list) and all(
        isinstance(entry, dict) and all(name.lower() in EXPORT_PROVIDERS for name in entry) for entry in options
    )
