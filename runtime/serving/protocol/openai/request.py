"""Requests for chat and text completions.

What would change the answer and is not supported is refused by name. Fields that no name here knows are ignored:
clients and chat UIs send some of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eptx._one_line import shown
from eptx.errors import RequestError
from eptx.files.strict_json import parse_json
from eptx.runtime.serving.errors import Refused

#: Between the name of a bundle and that of a task, in the name of a model. A bundle's name has none.
SEPARATOR = ":"

#: Fields of a request, and the options of generation that they are.
_OPTIONS = ("temperature", "top_k", "top_p", "seed", "stop")
#: The values of fields that change nothing; others are refused. Missing and null are as good.
_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "min_p": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "web_search_options": (),
}


@dataclass(frozen=True)
class CompletionRequest:
    """One request, as it was sent.

    Attributes:
        model: as the client names it.
        messages: a chat's; None: it is a text completion.
        prompt: a text, or token ids, of a text completion.
        options: of `eptx.runtime.ChatOptions` for a chat, of `eptx.runtime.SearchOptions` for a text.
        stream: whether the answer comes in events.
        usage: whether a stream says at its end how many tokens there were.
    """

    model: str
    messages: Sequence[Mapping[str, Any]] | None
    prompt: str | Sequence[int] | None
    options: Mapping[str, Any]
    stream: bool
    usage: bool

    @property
    def bundle(self) -> str:
        """The bundle's name in the model's."""
        return self.model.partition(SEPARATOR)[0]

    @property
    def task(self) -> str | None:
        """The task's name in the model's; None: the model is a bundle."""
        _, found, task = self.model.partition(SEPARATOR)
        return task if found else None

    @property
    def characters(self) -> int:
        """Of all its texts."""
        return _characters([self.prompt, self.messages, self.options.get("tools"), self.options.get("variables")])


def parse_chat(body: bytes) -> CompletionRequest:
    """Reads a request for a chat completion.

    Raises:
        RequestError: the body is not JSON.
        Refused: 400, a field is wrong, or not supported.
    """
    fields = _fields(body)
    options = _options(fields, "max_completion_tokens", "max_tokens")
    wanted, most = _flag(fields, "logprobs"), fields.get("top_logprobs")
    if most is not None and not wanted:
        raise _wrong("top_logprobs", "needs logprobs to be true")
    if wanted:
        options["top_logprobs"] = most or 0 if most is None or type(most) is int else most
    for name, option, kind in (("tools", "tools", list), ("chat_template_kwargs", "variables", dict)):
        given = fields.get(name)
        if given is not None and not isinstance(given, kind):
            raise _wrong(name, f"must be {'a list' if kind is list else 'an object'}, it is {shown(given)}")
        if given and not (name == "tools" and fields.get("tool_choice") == "none"):
            options[option] = given
    return _request(fields, options, messages=_messages(fields.get("messages")))


def parse_text(body: bytes) -> CompletionRequest:
    """Reads a request for a text completion.

    Raises:
        RequestError: the body is not JSON.
        Refused: 400, a field is wrong, or not supported.
    """
    fields = _fields(body)
    options = _options(fields, "max_tokens")
    for name, option in (("logprobs", "top_logprobs"), ("add_special_tokens", "add_special_tokens")):
        if fields.get(name) is not None:
            options[option] = fields[name]
    return _request(fields, options, prompt=_prompt(fields.get("prompt")))


def _request(
    fields: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    messages: Sequence[Mapping[str, Any]] | None = None,
    prompt: str | Sequence[int] | None = None,
) -> CompletionRequest:
    model, stream = fields.get("model"), fields.get("stream_options")
    if not isinstance(model, str) or not model:
        raise _wrong("model", "must name a model; GET /v1/models lists them")
    if stream is not None and not isinstance(stream, dict):
        raise _wrong("stream_options", f"must be an object, it is {shown(stream)}")
    usage = _flag(stream or {}, "include_usage")
    return CompletionRequest(model, messages, prompt, options, _flag(fields, "stream"), usage)


def _fields(body: bytes) -> dict[str, Any]:
    fields = parse_json(body, what="the request", error=RequestError)
    if not isinstance(fields, dict):
        raise RequestError("the request must be a JSON object")
    for name, neutral in _NEUTRAL.items():
        value = fields.get(name)
        if value is not None and value not in neutral:
            raise _wrong(name, f"is not supported here; leave it out, it is {shown(value)}")
    return fields


def _options(fields: Mapping[str, Any], *lengths: str) -> dict[str, Any]:
    """The options of generation; the first of the lengths that is given counts. Their values are checked later."""
    options = {name: fields[name] for name in _OPTIONS if fields.get(name) is not None}
    length = next((fields[name] for name in lengths if fields.get(name) is not None), None)
    return options if length is None else {**options, "max_new_tokens": length}


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, f"must be true or false, it is {shown(value)}")
    return bool(value)


def _messages(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not given:
        raise _wrong("messages", "must be a list of messages that is not empty")
    return [_message(f"messages[{i}]", message) for i, message in enumerate(given)]


def _message(where: str, given: Any) -> dict[str, Any]:
    """A message as templates read it: its content a text, and its calls' arguments objects."""
    if not isinstance(given, dict) or not isinstance(given.get("role"), str):
        raise _wrong(where, f"must be an object with a role and a content, it is {shown(given)}")
    message = {**given, "content": _content(where, given.get("content"))}
    calls = given.get("tool_calls")
    if calls is not None:
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise _wrong(f"{where}.tool_calls", f"must be a list of objects, it is {shown(calls)}")
        message["tool_calls"] = [_call(where, call) for call in calls]
    return message


def _content(where: str, content: Any) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(f"{where}.content", f"must be a text or a list of parts, it is {shown(content)}")
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise _wrong(f"{where}.content", f"may hold parts of type text only, not {shown(kind)}")
    return "\n".join(part["text"] for part in content)


def _call(where: str, call: dict[str, Any]) -> dict[str, Any]:
    """A tool's call whose arguments, JSON as a text, are an object: templates write them as JSON themselves."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    what = f"{where}.tool_calls: the arguments"
    arguments = parse_json(function["arguments"].encode() or b"{}", what=what, error=RequestError)
    return {**call, "function": {**function, "arguments": arguments}}


def _prompt(given: Any) -> str | list[int]:
    """The prompt; a list of one is as good."""
    prompt = given[0] if isinstance(given, list) and len(given) == 1 and type(given[0]) is not int else given
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return prompt
    if isinstance(prompt, list) and len(prompt) > 1:
        raise _wrong("prompt", "holds several prompts; send each in a request of its own, they share a batch")
    raise _wrong("prompt", f"must be a text or token ids, it is {shown(given)}")


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return sum(map(_characters, parts))


def _wrong(param: str, message: str) -> Refused:
    return Refused(400, f"{param} {message}", param=param)
