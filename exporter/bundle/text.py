"""How a base's tokenizer makes rows of texts: where it cuts, on which side, and what fills shorter rows.

transformers' tokenizer says it: it knows the defaults of its classes, and reads what `tokenizer_config.json`,
`special_tokens_map.json` and `tokenizer.json` set. Of the truncation in `tokenizer.json` it takes the side, and not the
length, which is that of a training script. The length that sentence-transformers keeps beside these files counts before
theirs, as it does there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eptx._one_line import one_line
from eptx.bundle import Text
from eptx.errors import BaseModelError
from eptx.exporter.bases import BaseGraph
from eptx.exporter.bases.max_length import positive
from eptx.exporter.bundle.tokenizer import TOKENIZER
from eptx.exporter.quiet import quiet
from eptx.files.strict_json import read_json_object

#: Where sentence-transformers keeps its settings; all but the first are names of old releases.
SENTENCE_SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_NO_LIMIT = 1_000_000  # tokenizers without one say 1e30


def text_settings(folder: Path, graph: BaseGraph, longest: int | None) -> Text | None:
    """How texts are read; None where the bundle has no ``tokenizer.json``.

    Args:
        folder: of the bundle, with its tokenizer in place.
        graph: of the base.
        longest: the most tokens that it reads.

    Raises:
        BaseModelError: the tokenizer, or a file of its settings, cannot be read.
    """
    if not (folder / TOKENIZER).is_file():
        return None
    tokenizer, lowers = _load(folder)
    limits = [limit for limit in (tokenizer.model_max_length, longest) if limit is not None and limit < _NO_LIMIT]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else graph.config.get("pad_token_id")
    return Text(
        # what a prompt asks stands at its end, so prompts are not cut
        max_length=min(limits) if limits and graph.generation is None else None,
        truncation_side=tokenizer.truncation_side,
        padding_side=tokenizer.padding_side,
        pad=pad if type(pad) is int and pad >= 0 else 0,  # where there is none, the attention mask hides it
        lower_case=lowers,
    )


def load_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer of a folder, with the length and the lowering that sentence-transformers gives it.

    Raises:
        BaseModelError: it, or a file of its settings, cannot be read.
    """
    return _load(folder)[0]


def _load(folder: Path) -> tuple[Any, bool]:
    """A tokenizer, and whether lowering was put before it, which is not in its own file."""
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    path = next((folder / name for name in SENTENCE_SETTINGS if (folder / name).is_file()), None)
    sentence = {} if path is None else read_json_object(path, error=BaseModelError)
    length = positive(sentence.get("max_seq_length"))
    settings = {} if length is None else {"model_max_length": length}
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **settings
            )
        except Exception as error:  # whatever its files provoke
            raise BaseModelError(f"{folder.name}: its tokenizer cannot be read: {one_line(error)}") from None
    backend = tokenizer.backend_tokenizer
    lowers = sentence.get("do_lower_case") is True and "Lowercase(" not in repr(backend.normalizer)
    if lowers:
        own = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return tokenizer, lowers
