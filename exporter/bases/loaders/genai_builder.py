"""GenAI's model builder, run on a base's weights with what else it reads put in words that it understands."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from eptx._one_line import one_line
from eptx.errors import NotSupportedError
from eptx.exporter.bases.loaders.genai_weights import one_weight_at_a_time
from eptx.exporter.bases.not_built import NotBuiltError
from eptx.exporter.bases.passes.rotary import context
from eptx.exporter.bases.weights.checkpoint import weight_files
from eptx.exporter.quiet import quiet
from eptx.files.strict_json import dump_json

#: What a tokenizer's vocabulary is in, by transformers' names.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model", "vocab.txt", "tekken.json")
#: What changes how rotary positions are made (eptx puts in the tables itself), and names of code that is not run.
_LEFT_OUT = ("rope_scaling", "rope_parameters", "auto_map")


#: What the builder (0.18) builds without an error, and not as transformers computes it.
_WRONG = {"OlmoForCausalLM": "its norms keep the mean, and clip_qkv clips nothing"}


def build(folder: Path, workspace: Path, parsed: Any, precision: str, provider: str, options: Sequence[str]) -> None:
    """Has the builder write its graph, its configuration and its tokenizer files.

    Args:
        folder: the transformers folder.
        workspace: where it writes.
        parsed: transformers' configuration of the folder.
        precision: "fp32", "fp16" or "int4".
        provider: "cpu" or "cuda".
        options: further ones, ``name=value``.

    Raises:
        NotBuiltError: the builder knows no such model, or does not get along with the files.
        NotSupportedError: GenAI is not installed.
    """
    try:
        from onnxruntime_genai.models import builder
    except ImportError:
        raise NotSupportedError("decoders need onnxruntime-genai: pip install 'eptx[export]'") from None
    name = parsed.architectures[0]
    if name in _WRONG:
        raise NotBuiltError(f"GenAI's builder (0.18) makes another model of a {name}: {_WRONG[name]}")
    source = workspace / "source"
    head, weights = _true_head(builder), one_weight_at_a_time(builder.Model)
    with quiet(), head, weights, contextlib.redirect_stderr(io.StringIO()):  # its progress bars are not ours
        read, target, cache = str(source), str(workspace), str(workspace / "cache")
        try:
            _write_source(folder, source, parsed)
            settings = builder.parse_extra_options("", read, target, precision, provider, cache, list(options))
            builder.create_model("", read, target, precision, provider, cache, **settings)
        except NotImplementedError:
            raise NotBuiltError(f"GenAI's builder (0.18) does not know a {name}") from None
        except Exception as e:  # whatever a configuration or weights that do not fit provoke
            raise NotBuiltError(f"{folder.name}: GenAI's builder cannot read this model: {one_line(e)}") from None


@contextlib.contextmanager
def _true_head(builder: Any) -> Iterator[None]:
    """Has the builder (0.18) take for the head what the model calls so.

    Of itself it takes every linear layer that is as wide as the vocabulary, a query projection for one.
    """
    with mock.patch.object(
        builder.Model, "has_lm_head", lambda self, module: module is self.weights.get_output_embeddings()
    ):
        yield


def has_tokenizer(folder: Path) -> bool:
    """Whether a transformers folder has a tokenizer."""
    return any((folder / name).is_file() for name in _VOCABULARIES)


def _write_source(folder: Path, source: Path, parsed: Any) -> None:
    """A folder of links to the base's files, but for the configuration, and a tokenizer where there is none."""
    source.mkdir(parents=True)
    weights = weight_files(folder)
    beside = [path for path in folder.iterdir() if path.is_file() and path.suffix != ".safetensors"]
    for path in (*weights, *beside):
        (source / path.name).symlink_to(path.resolve())
    (source / "config.json").unlink()
    (source / "config.json").write_bytes(dump_json(_plain(parsed)))
    if not has_tokenizer(folder):
        _write_tokenizer(source)


def _plain(parsed: Any) -> Mapping[str, Any]:
    """The configuration with rotary positions that are not scaled: some kinds of scaling end the builder."""
    config = {key: value for key, value in parsed.to_dict().items() if key not in _LEFT_OUT}
    rope = getattr(parsed, "rope_parameters", None) or {}
    kept = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    config["rope_parameters"] = {"rope_type": "default", **kept}
    config["max_position_embeddings"] = context(parsed)
    if "original_max_position_embeddings" in config:
        config["original_max_position_embeddings"] = context(parsed)
    return config


def _write_tokenizer(folder: Path) -> None:
    """A tokenizer without words or special tokens, since the builder wants one."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast  # transformers annotates a part of its functions
    fast(tokenizer_object=Tokenizer(models.WordLevel({}, unk_token=""))).save_pretrained(folder)
