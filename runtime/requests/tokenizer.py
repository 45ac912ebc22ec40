"""From texts to input arrays, with the bundle's tokenizer."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from eptx._one_line import one_line
from eptx.bundle import Bundle
from eptx.bundle import Text as TextSettings
from eptx.errors import BundleError, NotSupportedError, RequestError
from eptx.files.safe_files import read_bytes
from eptx.runtime.outputs import Array
from eptx.runtime.requests.row_text import EncodedText
from eptx.runtime.requests.rows import pad_rows

_LIMIT = 256 << 20
#: How many texts `Tokenizer.batches` reads at a time.
_SLICE = 4096

Text = str | Sequence[str | tuple[str, str]]


def is_text(inputs: Any) -> TypeGuard[Text]:
    """Whether a request's inputs are text rather than arrays by name."""
    return isinstance(inputs, str) or (isinstance(inputs, Sequence) and not isinstance(inputs, Mapping))


class Tokenizer:
    """The ``tokenizer.json`` of a bundle: special tokens, truncation as the manifest says, padding to the longest row.

    The manifest, not the file, decides about length and padding. Prompts are not truncated: the question stands at the
    end. A prompt that begins with the tokenizer's special tokens, as one from a chat template does, gets no others.

    Raises:
        RequestError: the bundle has no tokenizer.
        NotSupportedError: the ``tokenizers`` package is not installed.
        BundleError: the tokenizer cannot be read.
    """

    def __init__(self, bundle: Bundle) -> None:
        path = bundle.file("tokenizer.json")
        if path is None:
            raise RequestError("this bundle has no tokenizer.json; give arrays such as input_ids instead of text")
        try:
            library = importlib.import_module("tokenizers")
        except ImportError:
            raise NotSupportedError("text needs the tokenizers package; pip install tokenizers") from None
        data = read_bytes(path, error=BundleError, limit=_LIMIT, follow=False)
        try:
            self._tokenizer = library.Tokenizer.from_buffer(data)
        except BaseException as e:
            raise _unless_exit(e, BundleError(f"{path.name}: not a tokenizer: {one_line(e)}")) from None
        settings = bundle.manifest.text or TextSettings(max_length=bundle.manifest.max_length)
        self._prompts = bundle.manifest.generation is not None
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {number: str(token.content) for number, token in added.items() if token.special}
        self._pad = settings.pad
        self._left = settings.padding_side == "left"
        self._names = [spec.name for spec in bundle.manifest.inputs]
        if settings.lower_case:
            self._tokenizer.normalizer = _lowering(library.normalizers, self._tokenizer.normalizer)
        self._tokenizer.no_padding()
        if settings.max_length is None or self._prompts:
            self._tokenizer.no_truncation()
        else:
            self._tokenizer.enable_truncation(settings.max_length, direction=settings.truncation_side)

    def __call__(self, text: Text) -> dict[str, Array]:
        """Arrays int64 [rows, longest row]: ``input_ids``, and ``attention_mask`` and ``token_type_ids`` if the model
        has these inputs.

        Raises:
            RequestError: a row is neither a text nor a pair of texts, or has no tokens.
        """
        return self._arrays([text] if isinstance(text, str) else text)[0]

    def read(self, text: Text) -> tuple[dict[str, Array], list[EncodedText]]:
        """The same, and for each row where its tokens stand in its text. Not for prompts.

        Raises:
            RequestError: as `__call__`.
        """
        rows = [text] if isinstance(text, str) else text
        arrays, encodings = self._arrays(rows)
        longest = max(len(encoding.ids) for encoding in encodings)
        starts = [longest - len(encoding.ids) if self._left else 0 for encoding in encodings]
        texts = [(row,) if isinstance(row, str) else tuple(row) for row in rows]
        found = zip(texts, encodings, starts, strict=True)
        return arrays, [EncodedText(row, encoding, start, self._tokenizer) for row, encoding, start in found]

    def batches(self, text: Text, tokens: int) -> Iterator[tuple[list[int], dict[str, Array]]]:
        """The rows in batches of rows of like length: the numbers of a batch's rows, and its arrays as `__call__` makes
        them. Not for prompts.

        Args:
            text: one text, or many: a few thousand are in memory as tokens at a time.
            tokens: the most of a batch, padding included, unless a single row has more.

        Raises:
            RequestError: as `__call__`.
        """
        rows = [text] if isinstance(text, str) else text
        for start in range(0, max(len(rows), 1), _SLICE):
            part = rows[start : start + _SLICE]
            encodings = self._encode(part, start=start)
            batch: list[int] = []
            for place in sorted(range(len(part)), key=lambda place: len(encodings[place].ids)):
                if batch and len(encodings[place].ids) * (len(batch) + 1) > tokens:
                    yield [start + each for each in batch], self._padded(part, encodings, batch)
                    batch = []
                batch.append(place)
            yield [start + each for each in batch], self._padded(part, encodings, batch)

    def _padded(self, rows: Sequence[Any], encodings: Sequence[Any], batch: Sequence[int]) -> dict[str, Array]:
        return self._arrays_of([rows[place] for place in batch], [encodings[place] for place in batch])

    def _arrays(self, rows: Sequence[str | tuple[str, str]]) -> tuple[dict[str, Array], Sequence[Any]]:
        encodings = self._encode(rows)
        return self._arrays_of(rows, encodings), encodings

    def _arrays_of(self, rows: Sequence[Any], encodings: Sequence[Any]) -> dict[str, Array]:
        prompts = [self._prompts and isinstance(row, str) for row in rows]
        kept = [(e, _kept(e) if prompt else slice(None)) for e, prompt in zip(encodings, prompts, strict=True)]
        columns = {
            "input_ids": ([e.ids[part] for e, part in kept], self._pad),
            "attention_mask": ([e.attention_mask[part] for e, part in kept], 0),
            "token_type_ids": ([e.type_ids[part] for e, part in kept], 0),
        }
        names = [name for name in columns if name in self._names]
        return {name: pad_rows(*columns[name], left=self._left) for name in names}

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Each text's token ids, with the special tokens that the model wants around a text or without.

        Raises:
            RequestError: a text cannot be tokenized, or has no tokens.
        """
        return [list(encoding.ids) for encoding in self._encode(texts, special)]

    def encode_prompts(self, texts: Sequence[str], special: bool | None = None) -> list[list[int]]:
        """Each prompt's token ids.

        Args:
            texts: the prompts.
            special: whether to put the model's special tokens around them; None: around those that do not begin with
                them.

        Raises:
            RequestError: a text cannot be tokenized, or has no tokens.
        """
        if special is not None:
            return self.encode(texts, special=special)
        return [list(encoding.ids[_kept(encoding)]) for encoding in self._encode(texts)]

    def holds_special(self, text: str) -> bool:
        """Whether a text holds a special token as the tokenizer writes it, as what a chat template makes does."""
        return any(special in text for special in self._special.values())

    def special_text(self, token: int) -> str:
        """How the tokenizer writes a special token, which `decode` leaves out; empty for other tokens."""
        return self._special.get(token, "")

    def token_text(self, token: int) -> str:
        """One token's own text, special or not."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens, without special tokens and ids that the tokenizer does not know."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _encode(self, rows: Sequence[Any], special: bool = True, *, start: int = 0) -> Sequence[Any]:
        if not rows:
            raise RequestError("the batch of texts is empty")
        try:
            texts = [_row(i, row) for i, row in enumerate(rows, start)]
            encodings: Sequence[Any] = self._tokenizer.encode_batch(texts, add_special_tokens=special)
        except BaseException as e:
            raise _unless_exit(e, RequestError(f"the texts cannot be tokenized: {one_line(e)}")) from None
        for i, encoding in enumerate(encodings, start):
            if not encoding.ids:
                raise RequestError(f"text {i} has no tokens")
        return encodings


def _kept(encoding: Any) -> slice:
    """A prompt's tokens: without the special tokens around it if its text begins with them."""
    added, ids = encoding.special_tokens_mask, encoding.ids  # 1: added around the text; 0: of the text itself
    own = slice(added.index(0), len(added) - added[::-1].index(0)) if 0 in added else slice(0)
    return own if own.start and ids[own][: own.start] == ids[: own.start] else slice(None)


def _row(index: int, row: Any) -> str | tuple[str, str]:
    if isinstance(row, str):
        return row
    if isinstance(row, tuple | list) and len(row) == 2 and all(isinstance(part, str) for part in row):
        return row[0], row[1]
    raise RequestError(f"text {index} is neither a string nor a pair of strings")


def _lowering(normalizers: Any, own: Any) -> Any:
    """The tokenizer's own normalizer behind one that lowers."""
    first = normalizers.Lowercase()
    if own is None:
        return first
    return normalizers.Sequence([first, *(own if isinstance(own, normalizers.Sequence) else [own])])


def _unless_exit(e: BaseException, error: Exception) -> BaseException:
    """``error``, or ``e`` if it ends the program. Panics of the library's Rust are BaseExceptions too."""
    return e if isinstance(e, KeyboardInterrupt | SystemExit | GeneratorExit) else error
