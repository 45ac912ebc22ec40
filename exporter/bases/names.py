"""The names that one module may have."""

from __future__ import annotations

#: The cross-attention's projections of the encoder's output: the decoder's by name, and run once, with the encoder.
_CROSS = tuple(
    f".{name}" for name in ("EncDecAttention.k", "EncDecAttention.v", "encoder_attn.k_proj", "encoder_attn.v_proj")
)


def aliases(module: str, prefix: str) -> tuple[str, ...]:
    """The module's name, then the same with the base model's prefix taken away or added.

    An adapter trained on ``BertForSequenceClassification`` names ``bert.encoder...``, one trained on
    ``BertModel`` names ``encoder...``: the same modules.

    Args:
        module: a name such as ``bert.encoder.layer.0.attention.self.query``.
        prefix: ``base_model_prefix`` ("bert"), or "" when it is not known.
    """
    if not prefix:
        return (module,)
    head = f"{prefix}."
    return (module, module.removeprefix(head)) if module.startswith(head) else (module, head + module)


def same_module(name: str, module: str, prefix: str) -> bool:
    """Whether a graph's name is the module, give or take the prefix (any one word if it is not known)."""
    if name in aliases(module, prefix):
        return True
    if prefix:
        return False
    return name.partition(".")[2] == module or module.partition(".")[2] == name


def in_encoder(module: str) -> bool:
    """Whether an encoder-decoder's module reads the encoder's text: it then runs with the encoder, once."""
    sides = [part for part in module.split(".") if part in ("encoder", "decoder")]
    return sides[:1] == ["encoder"] or module.endswith(_CROSS)
