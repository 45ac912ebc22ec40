"""The chat template, in whichever file it stands."""

from __future__ import annotations

from typing import Any

from eptx.bundle import Bundle
from eptx.errors import BundleError
from eptx.exporter.validation.base.source import BaseSource
from eptx.files.safe_files import read_bytes
from eptx.files.strict_json import read_json_object
from eptx.runtime.validation.check import Check

_LIMIT = 16 << 20
_FILE, _SETTINGS = "chat_template.jinja", "tokenizer_config.json"


def compare_chat(bundle: Bundle, source: BaseSource) -> list[Check]:
    """Compares the bundle's chat template with the one that transformers finds in the base.

    Raises:
        BundleError: a file is damaged.
    """
    wanted = getattr(source.tokenizer, "chat_template", None)
    found = _templates(bundle)
    if not found:
        return [] if wanted is None else [Check("chat template", "compared", "is missing; the base has one")]
    return [Check(f"chat template ({name})", "compared", _wrong(text, wanted)) for name, text in found.items()]


def _wrong(found: Any, wanted: Any) -> str | None:
    if wanted is None:
        return "is there; the base has none"
    return None if found == wanted else "is not the base's"


def _templates(bundle: Bundle) -> dict[str, Any]:
    """File -> its template, or its templates by name, as transformers gives them."""
    found: dict[str, Any] = {}
    path = bundle.file(_FILE)
    if path is not None:
        data = read_bytes(path, error=BundleError, limit=_LIMIT, follow=False)
        try:
            found[_FILE] = data.decode("utf-8")
        except UnicodeDecodeError:
            raise BundleError(f"{_FILE}: not UTF-8 text") from None
    settings = bundle.file(_SETTINGS)
    template = None if settings is None else read_json_object(settings, error=BundleError).get("chat_template")
    if isinstance(template, list):
        template = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
    return found | ({_SETTINGS: template} if template is not None else {})
