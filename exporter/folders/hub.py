"""Repositories of the Hugging Face hub, in its own cache: only the files that eptx reads are fetched.

The hub is asked first, as transformers does it, because a cache may hold a part of a repository: a model whose
tokenizer nobody has used yet. Where the hub does not answer, or must not be asked (``HF_HUB_OFFLINE``), the cache
serves.
"""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

from eptx._one_line import one_line
from eptx.errors import EptxError
from eptx.exporter.folders.kinds import ADAPTER_CONFIG, adapters_inside
from eptx.exporter.quiet import quiet_hub
from eptx.progress import step

_ADAPTER = (ADAPTER_CONFIG, "adapter_model.safetensors", "task_heads.safetensors")
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
_BESIDE = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "sentence_*_config.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
_PICKLE = "adapter_model.bin"
_CONVERT = "load it with transformers, and give the folder that save_pretrained writes"
_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?(@[\w./-]+)?", re.ASCII)


def is_id(name: str) -> bool:
    """Whether a name may be of the hub: ``name``, ``owner/name``, with or without ``@revision``."""
    return _ID.fullmatch(name) is not None and ".." not in name and "--" not in name


def fetch(name: str, *, what: str, error: type[EptxError], allow_pickle: bool = False) -> Path:
    """The folder of a repository in the hub's cache.

    Args:
        name: ``owner/name`` or ``owner/name@revision``.
        what: is looked for, in the words of an error.
        error: the class to raise.
        allow_pickle: whether a pickle may be an adapter's weights. Else it is not fetched.

    Raises:
        error: it is neither in the cache nor on the hub, or the hub keeps it for others.
    """
    own = (*_ADAPTER, *([_PICKLE] if allow_pickle else []))
    with step(f"finding {name} on the hub or in its cache"):
        folder = _snapshot(name, (*own, *_WEIGHTS, *_BESIDE), what, error)
        if not any((folder / file).exists() for file in (ADAPTER_CONFIG, "config.json")):
            folder = _snapshot(name, tuple(f"*/{file}" for file in own), what, error)
    if not any((folder / file).exists() for file in (ADAPTER_CONFIG, "config.json")) and not adapters_inside(folder):
        raise error(f"{name}: the hub's repository is no {what}: it has neither config.json nor {ADAPTER_CONFIG}")
    # a cache that another program made may hold a pickle that is not allowed: the reader says so
    if not any(next(folder.glob(pattern), None) for pattern in (*_WEIGHTS, f"**/{_ADAPTER[1]}", f"**/{_PICKLE}")):
        pickle = _pickle(name)
        if pickle is not None and pickle.endswith(_PICKLE):
            raise error(f"{name}: has no {_ADAPTER[1]} but a pickle ({pickle}): if you trust it, add --allow-pickle")
        if pickle is not None:
            raise error(f"{name}: has no model.safetensors, and eptx never reads pickles ({pickle}): {_CONVERT}")
        raise error(f"{name}: the hub's cache holds no weights of it: run `hf download {name.partition('@')[0]}`")
    return folder


def _snapshot(name: str, files: tuple[str, ...], what: str, error: type[EptxError]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError:
        raise error(f"{name}: no such {what}; to look for it on the hub, pip install 'eptx[export]'") from None
    repository, _, revision = name.partition("@")
    try:
        with quiet_hub():
            return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(files)))
    except Exception as problem:  # of the network, of the disk, of the hub: many classes
        raise error(f"{name}: {_why(problem, repository, revision, what)}") from None


def _why(problem: Exception, repository: str, revision: str, what: str) -> str:
    from huggingface_hub import errors

    if isinstance(problem, errors.GatedRepoError):
        return "the hub gives it to those whom its owner lets in: ask on its page, then run `hf auth login`"
    if isinstance(problem, errors.RepositoryNotFoundError):
        return f"no such {what}, and no such public repository on the hub; for a private one run `hf auth login`"
    if isinstance(problem, errors.RevisionNotFoundError):
        return f"the hub's {repository} has no revision {revision}"
    download = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
    if isinstance(problem, errors.IncompleteSnapshotError):
        return f"is in the hub's cache in part, and the hub cannot be asked: run `{download}` where there is a network"
    if isinstance(problem, errors.LocalEntryNotFoundError):
        nowhere = f"no such {what}; it is not in the hub's cache either, and the hub cannot be asked"
        return f"{nowhere}: give a folder, or run `{download}` where there is a network"
    return f"cannot be fetched from the hub: {one_line(problem)}"


def _pickle(name: str) -> str | None:
    """The pickle that a repository has in place of weights; None where there is none, or the hub does not say it."""
    from huggingface_hub import HfApi

    repository, _, revision = name.partition("@")
    try:
        files = HfApi().list_repo_files(repository, revision=revision or None)
    except Exception:  # the cache serves, and says nothing of files that it does not hold
        return None
    return next((file for file in sorted(files) if fnmatch(file, "pytorch_model*.bin") or file.endswith(_PICKLE)), None)
