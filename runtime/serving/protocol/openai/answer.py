"""Answers to chat and text completions, whole and as server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eptx.runtime.generation.outputs import FinishReason, Piece
from eptx.runtime.serving.protocol.openai.request import CompletionRequest

#: The last event of a stream.
DONE = b"data: [DONE]\n\n"
#: What clients call the reasons for an answer's end.
_REASONS: Mapping[FinishReason, str] = {"stop": "stop", "stop_string": "stop", "length": "length"}
#: The least logarithm that is told: JSON has no infinity.
_LEAST = -9999.0
#: A tokenizer writes it for bytes that are no whole character.
_REPLACEMENT = "\ufffd"


class AnswerWriter:
    """Writes one answer.

    Args:
        request: that is answered.
        prompt_tokens: of the prompt.
        token_text: gives a token's own text.
    """

    def __init__(self, request: CompletionRequest, prompt_tokens: int, token_text: Callable[[int], str]) -> None:
        self._request, self._prompt_tokens, self._token_text = request, prompt_tokens, token_text
        self._chat = request.messages is not None
        self._head = {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request.model,
        }
        self._offset = 0  # characters of the tokens that logprobs have told of

    def whole(self, pieces: Sequence[Piece]) -> bytes:
        """The answer of all its pieces."""
        text = "".join(piece.text for piece in pieces)
        said: dict[str, Any] = {"text": text}
        if self._chat:
            said = {"message": {"role": "assistant", "content": text, "refusal": None}}
        choice = self._choice(said, pieces, pieces[-1].finish_reason)
        kind = "chat.completion" if self._chat else "text_completion"
        return _json({**self._head, "object": kind, "choices": [choice], "usage": self._usage(len(pieces))})

    def first(self) -> bytes:
        """The event before a chat's first piece, which says who writes; nothing for a text."""
        return self._event([{"index": 0, "delta": {"role": "assistant", "content": ""}}]) if self._chat else b""

    def event(self, piece: Piece) -> bytes:
        """What one piece adds; nothing where that is neither text nor more."""
        if not piece.text and piece.logprobs is None and piece.finish_reason is None:
            return b""
        delta = {"content": piece.text} if piece.text or piece.logprobs is not None else {}
        said: dict[str, Any] = {"delta": delta} if self._chat else {"text": piece.text}
        return self._event([self._choice(said, [piece], piece.finish_reason)])

    def last(self, count: int) -> bytes:
        """The end of a stream of ``count`` tokens."""
        return (self._event([], usage=self._usage(count)) if self._request.usage else b"") + DONE

    def _event(self, choices: list[dict[str, Any]], usage: Mapping[str, int] | None = None) -> bytes:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        counted = {"usage": usage} if self._request.usage else {}  # null in all events but the last
        return b"data: %b\n\n" % _json({**self._head, "object": kind, "choices": choices, **counted})

    def _choice(self, said: Mapping[str, Any], pieces: Sequence[Piece], reason: FinishReason | None) -> dict[str, Any]:
        # the token that ends an answer is no part of its text
        shown = [piece for piece in pieces if piece.logprobs is not None and piece.finish_reason != "stop"]
        asked = any(piece.logprobs is not None for piece in pieces)
        told = (self._of_chat(shown) if self._chat else self._of_text(shown)) if asked else None
        return {"index": 0, **said, "logprobs": told, "finish_reason": None if reason is None else _REASONS[reason]}

    def _of_chat(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        content = []
        for piece in pieces:
            assert piece.logprobs is not None
            top = [self._token(token, value) for token, value in piece.logprobs.top]
            content.append({**self._token(piece.token_id, piece.logprobs.token), "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _token(self, token: int, value: float) -> dict[str, Any]:
        text = self._token_text(token)
        return {
            "token": text,
            "logprob": max(value, _LEAST),
            "bytes": None if _REPLACEMENT in text else list(text.encode()),
        }

    def _of_text(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        told: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for piece in pieces:
            assert piece.logprobs is not None
            text = self._token_text(piece.token_id)
            told["tokens"].append(text)
            told["token_logprobs"].append(max(piece.logprobs.token, _LEAST))
            top = {self._token_text(token): max(value, _LEAST) for token, value in piece.logprobs.top}
            told["top_logprobs"].append(top)
            told["text_offset"].append(self._offset)
            self._offset += len(text)
        return told

    def _usage(self, count: int) -> dict[str, int]:
        both = self._prompt_tokens + count
        return {"prompt_tokens": self._prompt_tokens, "completion_tokens": count, "total_tokens": both}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
