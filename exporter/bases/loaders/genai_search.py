"""How GenAI searches for an answer, as a base's generation settings say.

GenAI's builder (0.18) takes some of them from there; others, a repetition penalty for one, it looks for in
``config.json`` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eptx._one_line import one_line
from eptx.errors import BaseModelError

#: Settings that mean the same to both, with the types that GenAI reads.
_SHARED: Mapping[str, tuple[type, ...]] = {
    "do_sample": (bool,),
    "early_stopping": (bool,),
    "min_length": (int,),
    "num_beams": (int,),
    "num_return_sequences": (int,),
    "no_repeat_ngram_size": (int,),
    "top_k": (int,),
    "top_p": (int, float),
    "temperature": (int, float),
    "repetition_penalty": (int, float),
    "length_penalty": (int, float),
    "diversity_penalty": (int, float),
}


def search_settings(folder: Path, parsed: Any) -> dict[str, Any]:
    """What the base says of the search, by GenAI's names.

    Args:
        folder: the transformers folder.
        parsed: transformers' configuration of it, which counts where there are no generation settings.

    Raises:
        BaseModelError: transformers cannot read them.
    """
    from transformers import GenerationConfig

    try:
        if (folder / "generation_config.json").is_file():
            said = GenerationConfig.from_pretrained(folder, local_files_only=True)
        else:
            said = GenerationConfig.from_model_config(parsed)
    except Exception as e:  # whatever the file's values provoke
        raise BaseModelError(f"generation_config.json: cannot be read: {one_line(e)}") from None
    values = {name: getattr(said, name, None) for name in _SHARED}
    return {name: value for name, value in values.items() if type(value) in _SHARED[name]}
