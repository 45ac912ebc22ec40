"""What a folder has in place of the weights that eptx reads, in the words of an error."""

from __future__ import annotations

from pathlib import Path

#: Weights in other formats, as transformers and others name them; not what a trainer leaves beside (training_args.bin).
_PICKLES = ("pytorch_model*.bin", "model.pt", "model.pth", "consolidated*.pth", "model.ckpt*")
_FORMATS = ("tf_model*.h5", "flax_model*.msgpack", "*.gguf", "*.onnx")


def lacking_weights(folder: Path, name: str) -> str:
    """Why a folder has no weights.

    Args:
        folder: a transformers folder.
        name: the file that it has not.
    """
    shards = _first(folder, ("model-*-of-*.safetensors",))
    if shards:
        return f"has {shards}, and no {name}.index.json that says what is where"
    pickle = _first(folder, _PICKLES)
    if pickle:
        return f"has no {name}, and eptx never reads pickles ({pickle}); save the model with safe_serialization=True"
    other = _first(folder, _FORMATS)
    if other:
        return f"has no {name}, and eptx does not read {other} as a base's weights; save the model with transformers"
    inside = _first(folder, (f"*/{name}", f"*/{name}.index.json"))
    return f"{name} is missing" + (f"; {inside} is there" if inside else "")


def _first(folder: Path, patterns: tuple[str, ...]) -> str:
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    return next((path.relative_to(folder).as_posix() for path in found if path.name.isprintable()), "")
