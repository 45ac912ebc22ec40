"""The chat template of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from eptx._one_line import shown
from eptx.bundle import Bundle
from eptx.errors import BundleError, RequestError
from eptx.files.safe_files import read_bytes
from eptx.files.strict_json import read_json_object
from eptx.runtime.requests.chat.renderer import Renderer

#: One message: ``role``, ``content``, and whatever else the template reads (``tool_calls``, ...).
Message = Mapping[str, Any]
#: A chat: its messages, the oldest first; or several chats, one for each row.
Messages = Sequence[Message] | Sequence[Sequence[Message]]

_FILE, _SETTINGS, _LEGACY = "chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json"
_LIMIT = 4 << 20
_DEFAULT, _TOOLS = "default", "tool_use"
#: The special tokens that templates may name, as transformers gives them.
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
#: The names under which callers and templates know what a model thought before its answer.
_REASONING = ("reasoning_content", "thinking", "reasoning")
#: What a template is always given; its other variables are the caller's.
_GIVEN = ("messages", "tools", "add_generation_prompt")


class ChatTemplate:
    """A bundle's chat template, which gives the text that transformers' ``apply_chat_template`` gives.

    Args:
        templates: by name.
        tokens: the texts of the special tokens by name.
    """

    def __init__(self, templates: Mapping[str, str], tokens: Mapping[str, str]) -> None:
        self._templates, self._tokens = templates, tokens
        self._renderer = Renderer()

    @classmethod
    def of(cls, bundle: Bundle) -> Self | None:
        """That of a bundle; None where it has none, since its base was not trained to chat.

        Raises:
            BundleError: a file is damaged.
        """
        templates = _templates(bundle)
        return cls(templates, _special_tokens(bundle)) if templates else None

    def render(
        self,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Each chat's prompt, up to where the model's answer begins.

        Args:
            messages: one chat, or several.
            tools: the functions that the model may call, as JSON schemas.
            variables: what else the template reads (``enable_thinking``, ``documents``, ...).

        Raises:
            RequestError: these are no messages, or the template does not take them.
            BundleError: the template cannot be used.
            LimitError: the template takes too much time or memory.
            NotSupportedError: the ``jinja2`` package is not installed.
        """
        chats = _chats(messages)
        if tools is not None and not _all(tools, Mapping):
            raise RequestError("tools must be a list of JSON schemas")
        if variables is not None and not isinstance(variables, Mapping):
            raise RequestError(f"the template's variables must be values by name, not {type(variables).__name__}")
        own = [name for name in variables or {} if name in _GIVEN]
        if own:
            raise RequestError(f"{own[0]} is no variable of a caller's: the chat itself says it")
        given = {**self._tokens, "documents": None, **(variables or {})}
        given |= {"tools": None if tools is None else list(map(dict, tools)), "add_generation_prompt": True}
        template = self._template(tools is not None)
        return [self._renderer.render(template, {**given, "messages": chat}) for chat in chats]

    def _template(self, tools: bool) -> str:
        found = (self._templates.get(_TOOLS) if tools else None) or self._templates.get(_DEFAULT)
        if found is None:
            raise BundleError(f"{_SETTINGS}: none of its chat templates is named {_DEFAULT}")
        return found


def _chats(messages: Any) -> list[list[dict[str, Any]]]:
    """The messages of each chat, without what is None: templates ask whether a name is there."""
    several = _all(messages, Sequence) and not _all(messages, str)
    chats = [*messages] if several else [messages]
    if not _all(messages, object) or not messages or not all(chats):
        raise RequestError("messages must be a list of messages that is not empty")
    return [[_message(i, message) for i, message in enumerate(chat)] for chat in chats]


def _message(index: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not all(isinstance(name, str) for name in message):
        raise RequestError(f"message {index} must have a role and a content by name, it is {shown(message)}")
    if not isinstance(message.get("role"), str):
        raise RequestError(f"message {index} has no role, such as user; it has {', '.join(map(shown, message))}")
    kept = {name: value for name, value in message.items() if value is not None}
    thought = next((kept[name] for name in _REASONING if name in kept), None)
    return kept if thought is None else {"thinking": thought, **kept, "reasoning_content": thought}


def _all(values: Any, kind: type) -> bool:
    listed = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    return listed and all(isinstance(value, kind) for value in values)


def _templates(bundle: Bundle) -> dict[str, str]:
    """The templates by name; a file of its own counts before the tokenizer's settings."""
    path = bundle.file(_FILE)
    if path is not None:
        try:
            return {_DEFAULT: read_bytes(path, error=BundleError, limit=_LIMIT, follow=False).decode()}
        except UnicodeDecodeError:
            raise BundleError(f"{_FILE}: not UTF-8 text") from None
    given = _settings(bundle, _SETTINGS).get("chat_template")
    if isinstance(given, str):
        return {_DEFAULT: given}
    listed = given if isinstance(given, list) else []
    named = {entry.get("name"): entry.get("template") for entry in listed if isinstance(entry, dict)}
    return {name: text for name, text in named.items() if isinstance(name, str) and isinstance(text, str)}


def _special_tokens(bundle: Bundle) -> dict[str, str]:
    """The special tokens by name. Settings that list no added tokens are older, and a second file counts."""
    settings = _settings(bundle, _SETTINGS)
    if "added_tokens_decoder" not in settings:
        settings = {**settings, **_settings(bundle, _LEGACY)}
    texts = {}
    for name in _TOKENS:
        value = settings.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            texts[name] = text
    return texts


def _settings(bundle: Bundle, name: str) -> dict[str, Any]:
    path = bundle.file(name)
    return {} if path is None else read_json_object(path, error=BundleError)
