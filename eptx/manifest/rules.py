"""What must hold between the sections of ``eptx.json``."""

from __future__ import annotations

from eptx.errors import BundleError
from eptx.files.fields import COUNTS
from eptx.manifest.content import Component, Manifest
from eptx.manifest.names import (
    CHANNELS,
    EMBEDDING,
    LOGITS,
    MANIFEST_FILE,
    MODEL_FILE,
    PAST,
    PIXELS,
    PRESENT,
    ROUTE_GROUP,
    ROUTE_WEIGHTS,
    TASK_ID,
    TASK_ID_USED,
    USED,
)


def check_rules(m: Manifest) -> None:
    """Refuses a manifest whose sections contradict each other.

    Raises:
        BundleError: naming the contradiction.
    """
    for what, names in (
        ("task", [t.name for t in m.tasks]),
        ("task id", [t.id for t in m.tasks]),
        ("input", [t.name for t in m.inputs]),
        ("output", [t.name for t in m.outputs]),
    ):
        if not names:
            raise BundleError(f"{MANIFEST_FILE}: names no {what}")
        if len(set(names)) != len(names):
            raise BundleError(f"{MANIFEST_FILE}: a {what} appears twice")
    for tensor in (*m.inputs, *m.outputs):
        if tensor.name in (TASK_ID, TASK_ID_USED) and (tensor.dtype[:3] != "int" or len(tensor.shape) != 1):
            raise BundleError(f"{MANIFEST_FILE}: {tensor.name} is not one integer for each row")
    if any(not tensor.shape for tensor in m.inputs) or all(tensor.name == TASK_ID for tensor in m.inputs):
        raise BundleError(f"{MANIFEST_FILE}: the inputs have no batch")
    if MODEL_FILE not in m.files:
        raise BundleError(f"{MANIFEST_FILE}: does not list {MODEL_FILE}")
    if m.mode == "static" and (m.operators is not None or len(m.tasks) != 1):
        raise BundleError(f"{MANIFEST_FILE}: a static bundle has one task and no custom operators")
    if m.task_inference and (m.mode != "dynamic" or m.routing is not None):
        raise BundleError(f"{MANIFEST_FILE}: only a dynamic bundle without a routing can infer the task")
    has_task_id = any(t.name == TASK_ID for t in m.inputs)
    if has_task_id and m.mode == "static":
        raise BundleError(f"{MANIFEST_FILE}: a static bundle has no input {TASK_ID}")
    if not has_task_id and (m.mode == "conditioned" or m.task_inference):
        raise BundleError(f"{MANIFEST_FILE}: the input {TASK_ID} is missing")
    _check_labels(m)
    _check_embedding(m)
    _check_image(m)
    _check_vocabularies(m)
    _check_cache(m)
    _check_generation(m)
    if m.encoder is None:
        _check_routing(m)
    else:
        _check_encoder(m, m.encoder)


def _logits_width(m: Manifest) -> int | None:
    """How many logits a row has, where ``eptx.json`` says it. The graph must agree."""
    shape = next((t.shape for t in m.outputs if t.name == LOGITS), ())
    return shape[-1] if shape and isinstance(shape[-1], int) else None


def _check_labels(m: Manifest) -> None:
    """A row has at least as many logits as a task has labels."""
    width = _logits_width(m)
    for task in m.tasks:
        if task.labels and all(t.name != LOGITS for t in m.outputs):
            raise BundleError(f"{MANIFEST_FILE}: task {task.name} has labels; the model has no output {LOGITS}")
        if task.labels and width is not None and task.labels > width:
            raise BundleError(f"{MANIFEST_FILE}: task {task.name} has {task.labels} labels; a row has {width} logits")


def _check_embedding(m: Manifest) -> None:
    """What is said of an embedding fits the output: one vector for each row, as long as the last layer says."""
    if m.embedding is None:
        return
    spec = next((t for t in m.outputs if t.name == EMBEDDING), None)
    size = spec.shape[1] if spec is not None and len(spec.shape) == 2 else None
    if spec is None or not isinstance(size, int) or spec.dtype != "float32":
        raise BundleError(f"{MANIFEST_FILE}: the output {EMBEDDING} is not one vector of float32 for each row")
    if m.embedding.layers and m.embedding.layers[-1].size != size:
        raise BundleError(f"{MANIFEST_FILE}: the output {EMBEDDING} is not as long as the last layer of embedding says")


def _check_image(m: Manifest) -> None:
    """What is said of images is of an input: the pixels of each row."""
    shape = next((t.shape for t in m.inputs if t.name == PIXELS and t.dtype[:5] == "float"), ())
    if m.image is not None and (len(shape) != 4 or shape[1] != CHANNELS):
        raise BundleError(f"{MANIFEST_FILE}: image is of an input {PIXELS} [batch, {CHANNELS}, height, width]")


def _check_vocabularies(m: Manifest) -> None:
    """No task has more tokens than the model."""
    for task in m.tasks:
        if task.vocab_size is not None and m.vocab_size is not None and task.vocab_size > m.vocab_size:
            raise BundleError(
                f"{MANIFEST_FILE}: task {task.name} has {task.vocab_size} tokens; the model has {m.vocab_size}"
            )


def _check_routing(m: Manifest) -> None:
    """With the routing "prompt" the route of each row is an input and an output; otherwise neither exists."""
    given = {t.name: (t.dtype, len(t.shape)) for t in m.inputs}
    said = {t.name: (t.dtype, len(t.shape)) for t in m.outputs}
    wanted = {ROUTE_GROUP: ("int64", 1), ROUTE_WEIGHTS: ("float32", 2)}
    for name, form in wanted.items():
        found = [given.get(name), said.get(f"{name}{USED}")]
        if found != ([form] * 2 if m.routing == "prompt" else [None] * 2):
            raise BundleError(f"{MANIFEST_FILE}: {name} and {name}{USED} do not fit the routing {m.routing}")
    if any(t.name == ROUTE_WEIGHTS and not isinstance(t.shape[1], int) for t in m.inputs):
        raise BundleError(f"{MANIFEST_FILE}: {ROUTE_WEIGHTS} does not say how many weights a row has")


def _check_cache(m: Manifest) -> None:
    """Every input of the cache has an output of the same type and rank, which is fed to it next."""
    past = {t.name.removeprefix(PAST): (t.dtype, len(t.shape)) for t in m.inputs if t.name.startswith(PAST)}
    present = {t.name.removeprefix(PRESENT): (t.dtype, len(t.shape)) for t in m.outputs if t.name.startswith(PRESENT)}
    if past != present or any(rank != 4 for _, rank in past.values()):
        raise BundleError(f"{MANIFEST_FILE}: the inputs {PAST}* and the outputs {PRESENT}* do not fit each other")
    if m.generation is not None and not past:
        raise BundleError(f"{MANIFEST_FILE}: a model that generates has inputs {PAST}*")


def _check_generation(m: Manifest) -> None:
    kind = m.generation.kind if m.generation is not None else None
    if (kind == "encoder-decoder") != (m.encoder is not None):
        raise BundleError(f"{MANIFEST_FILE}: an encoder-decoder has an encoder, and nothing else has one")
    if m.generation is None:
        return
    ranks = {t.name: len(t.shape) for t in m.inputs}
    if kind == "decoder" and (ranks.get("input_ids"), ranks.get("attention_mask")) != (2, 2):
        raise BundleError(f"{MANIFEST_FILE}: a decoder has inputs input_ids and attention_mask [batch, length]")
    if all(t.name != LOGITS for t in m.outputs):
        raise BundleError(f"{MANIFEST_FILE}: a model that generates has an output {LOGITS}")
    ruled = m.generation.rules.tokens if m.generation.rules is not None else ()
    tokens = (*m.generation.eos, m.generation.pad, m.generation.start or 0, *ruled)
    width = _logits_width(m)
    known = min(m.vocab_size or COUNTS, width or COUNTS)
    if max(tokens) >= known:
        raise BundleError(f"{MANIFEST_FILE}: generation names token {max(tokens)}; the model has {known}")


def _check_encoder(m: Manifest, encoder: Component) -> None:
    if encoder.file not in m.files or encoder.file == MODEL_FILE or not encoder.file.endswith(".onnx"):
        raise BundleError(f"{MANIFEST_FILE}: the encoder's file {encoder.file!r} is not a model of the bundle")
    for what, tensors in (("input", encoder.inputs), ("output", encoder.outputs)):
        names = [t.name for t in tensors]
        if not names or len(set(names)) != len(names):
            raise BundleError(f"{MANIFEST_FILE}: the encoder names no {what}, or one twice")
