"""How an encoder-decoder answers: the tokens that start and end an answer, and the rules that it obeys.

They are those of ``generation_config.json``, or of ``config.json`` where there is no such file, as transformers' own
greedy search takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eptx.bundle import AnswerRules, Generation
from eptx.errors import BaseModelError, NotSupportedError
from eptx.files.strict_json import read_json_object

__all__ = ["answer_settings"]

_FILE = "generation_config.json"
#: Settings that change what greedy search answers, and have no counterpart here -> the value that changes nothing.
_WITHOUT_COUNTERPART = {
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "guidance_scale": 1.0,
    "sequence_bias": None,
}


def answer_settings(folder: Path, config: Mapping[str, Any]) -> Generation:
    """How the model of a transformers folder answers.

    Args:
        folder: the transformers folder.
        config: its ``config.json``.

    Raises:
        BaseModelError: a setting is missing or is no token of the vocabulary.
        NotSupportedError: a setting changes answers in a way that eptx has no counterpart for.
    """
    path = folder / _FILE
    own = read_json_object(path, error=BaseModelError) if path.is_file() else None
    return _Settings(config, own).read()


class _Settings:
    """The settings of one folder."""

    def __init__(self, config: Mapping[str, Any], own: Mapping[str, Any] | None) -> None:
        self._file = "config.json" if own is None else _FILE
        self._own = config if own is None else own
        self._all = {**config, **{name: value for name, value in (own or {}).items() if value is not None}}

    def read(self) -> Generation:
        eos = self._all.get("eos_token_id")
        start = self._all.get("decoder_start_token_id")
        return Generation(
            "encoder-decoder",
            tuple(self._token("eos_token_id", end) for end in (eos if isinstance(eos, list) and eos else [eos])),
            self._token("pad_token_id", self._all.get("pad_token_id", start)),
            self._token("decoder_start_token_id", start),
            rules=self._rules(),
        )

    def _rules(self) -> AnswerRules:
        for name, nothing in _WITHOUT_COUNTERPART.items():
            if self._own.get(name) not in (None, nothing):
                raise NotSupportedError(
                    f"{self._file}: {name} changes answers, and eptx has no counterpart; remove it to export"
                )
        suppressed = [*self._tokens("suppress_tokens"), *self._single_bad_words()]
        return AnswerRules(
            forced=self._forced(),
            suppress_tokens=tuple(dict.fromkeys(suppressed)),
            begin_suppress_tokens=self._tokens("begin_suppress_tokens"),
            min_length=self._count("min_length"),
            no_repeat_ngram_size=self._count("no_repeat_ngram_size"),
            encoder_no_repeat_ngram_size=self._count("encoder_no_repeat_ngram_size"),
            repetition_penalty=self._penalty(),
            forced_eos=self._forced_eos(),
        )

    def _forced(self) -> tuple[tuple[int, ...], ...]:
        """``forced_bos_token_id``; of Whisper the language, what to do with it, and that no times are wanted."""
        languages = self._own.get("lang_to_id")
        places: list[tuple[int, ...]] = []
        language, task = self._own.get("language"), self._own.get("task")
        if language is None and task is None:
            places = [self._place(*entry) for entry in self._places("forced_decoder_ids")]
        if isinstance(languages, dict) and languages and not any(places[:1]):
            known = {str(name): self._token("lang_to_id", token) for name, token in languages.items()}
            chosen = tuple(known.values()) if language is None else (self._language(str(language), known),)
            places[:1] = [chosen]
        tasks = self._own.get("task_to_id")
        if isinstance(tasks, dict) and (task is not None or language is not None):
            name = str(task or "transcribe")
            if name not in tasks:
                raise BaseModelError(f"{self._file}: task {name[:40]!r} is not one of task_to_id")
            places.append((self._token("task_to_id", tasks[name]),))
        plain = self._own.get("no_timestamps_token_id")
        if plain is not None and self._own.get("return_timestamps"):
            raise NotSupportedError(f"{self._file}: return_timestamps is not supported; set it to false to export")
        if plain is not None and (plain,) not in places[-1:]:
            places.append((self._token("no_timestamps_token_id", plain),))
        forced = self._own.get("forced_bos_token_id")
        if forced is not None:
            places.append((self._token("forced_bos_token_id", forced),))
        return tuple(place for place in places if place)

    def _forced_eos(self) -> int | None:
        given = self._own.get("forced_eos_token_id")
        first = given[0] if isinstance(given, list) and given else given
        return None if first is None else self._token("forced_eos_token_id", first)

    def _language(self, name: str, known: Mapping[str, int]) -> int:
        """A language by its token or its two letters, as Whisper's settings name it."""
        found = known.get(name.lower(), known.get(f"<|{name.lower()}|>"))
        if found is None:
            raise BaseModelError(f"{self._file}: language {name[:40]!r} is not one of lang_to_id; give it as '<|en|>'")
        return found

    def _places(self, name: str) -> list[list[Any]]:
        given = self._own.get(name) or []
        if not isinstance(given, list) or not all(isinstance(entry, list) and len(entry) == 2 for entry in given):
            raise BaseModelError(f"{self._file}: {name} must be a list of places and tokens")
        return given

    def _place(self, place: Any, token: Any) -> tuple[int, ...]:
        return () if token is None else (self._token("forced_decoder_ids", token),)

    def _single_bad_words(self) -> list[int]:
        words = self._own.get("bad_words_ids") or []
        if not isinstance(words, list) or not all(isinstance(word, list) and len(word) == 1 for word in words):
            raise NotSupportedError(
                f"{self._file}: bad_words_ids of several tokens have no counterpart in eptx; remove them to export"
            )
        return [self._token("bad_words_ids", word[0]) for word in words]

    def _tokens(self, name: str) -> tuple[int, ...]:
        given = self._own.get(name) or []
        if not isinstance(given, list):
            raise BaseModelError(f"{self._file}: {name} must be a list of tokens")
        return tuple(self._token(name, token) for token in given)

    def _token(self, name: str, value: Any) -> int:
        if type(value) is int and 0 <= value < self._all.get("vocab_size", 0):
            return value
        raise BaseModelError(f"config.json: {name} must be a token of the vocabulary, it is {str(value)[:40]}")

    def _count(self, name: str) -> int:
        value = self._own.get(name) or 0
        if type(value) is int and 0 <= value < 1 << 31:
            return value
        raise BaseModelError(f"{self._file}: {name} must be a number of tokens, it is {str(value)[:40]}")

    def _penalty(self) -> float:
        value = self._own.get("repetition_penalty")
        value = 1.0 if value is None else value
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9:
            return float(value)
        raise BaseModelError(f"{self._file}: repetition_penalty must be a number above 0, it is {str(value)[:40]}")
