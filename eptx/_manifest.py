"""``eptx.json``: what a bundle says about itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from eptx._fields import COUNTS, Fields
from eptx._safe_files import is_contained_name
from eptx.errors import BundleError

SCHEMA_VERSION = 1
OPERATOR_DOMAIN = "ai.eptx"
OPERATOR_VERSION = 1

MANIFEST_FILE = "eptx.json"
MODEL_FILE = "model.onnx"
REPORT_FILES = ("validation.json", "report.html", "calibration.json", "calibration.html")

#: Inputs and outputs of a language model's cache, by what comes after the prefix.
PAST, PRESENT, CROSS = "past_key_values.", "present.", "cross."

#: What the caller may choose (-1: the model does), and the outputs that say what was used.
TASK_ID, ROUTE_GROUP, ROUTE_WEIGHTS = "task_id", "route_group", "route_weights"
USED = "_used"
#: A task that every bundle may have: the base without an adapter. Not a task: the model is to infer each row's.
BASE_TASK, AUTO_TASK = "base", "auto"
TASK_ID_USED = f"{TASK_ID}{USED}"
#: The output whose first numbers are a row's answer.
LOGITS = "logits"

MODES = ("static", "conditioned", "dynamic")
METHODS = ("ept", "tucka", "lora")
PRECISIONS = ("fp32", "fp16", "int8", "int8-static", "int4", "mixed")
#: How one product or table of a quantized bundle is stored; see docs/calibration.md.
SCHEMES = ("fp32", "fp16", "int8", "int8-static", "int8-blocks", "int4-blocks")
PROVIDERS = ("cpu", "cuda")
ROUTINGS = ("batch", "row", "prompt")
GENERATORS = ("decoder", "encoder-decoder")
#: transformers' words for what logits mean: values; one label of several; each label by itself, or not.
REGRESSION, SINGLE_LABEL, MULTI_LABEL = PROBLEM_TYPES = (
    "regression",
    "single_label_classification",
    "multi_label_classification",
)
SIDES = ("left", "right")
#: Numbers of experts are below.
_MOST_EXPERTS = 1 << 16
TENSOR_DTYPES = ("float16", "float32", "float64", "int32", "int64", "bool")


@dataclass(frozen=True)
class Task:
    """One task of a bundle.

    Attributes:
        name: how a request names it.
        id: its value of the graph input ``task_id``.
        labels: how many of its logits count; None without task heads.
        label_names: their names, where the exporter was told them.
        problem_type: what its logits mean, one of `PROBLEM_TYPES`; None without any.
    """

    name: str
    id: int
    labels: int | None = None
    label_names: tuple[str, ...] | None = None
    problem_type: str | None = None


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output; a dimension is a number, or a name where it varies."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]


@dataclass(frozen=True)
class Operators:
    """The domain and version of the operators that the model defines for itself."""

    domain: str = OPERATOR_DOMAIN
    version: int = OPERATOR_VERSION


@dataclass(frozen=True)
class ModuleOutput:
    """Where an adapted module's output is in the model.

    Attributes:
        output: the name of the value.
        columns: first and last (exclusive) feature of the module in it.
        bias: whether the module's bias is added already.
        unused_experts: EPT, conditioned: the adapter's experts that no task uses, which the model does not have.
    """

    output: str
    columns: tuple[int, int]
    bias: bool
    unused_experts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Component:
    """Another model of the bundle: of an encoder-decoder, the encoder.

    Its outputs that are inputs of ``model.onnx`` are fed there, by name.

    Attributes:
        file: its name in the bundle.
        inputs: its graph inputs. outputs: its graph outputs.
        modules: the adapted modules that it holds.
    """

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    modules: Mapping[str, ModuleOutput]


@dataclass(frozen=True)
class Generation:
    """How ``model.onnx`` generates text, one token after the other.

    Its cache are the inputs ``past_key_values.<name>`` [batch, heads, past, head size], empty at first, and the outputs
    ``present.<name>`` to feed in their place. Rows are padded on the right.

    Attributes:
        kind: "decoder" (GenAI's graph, the prompt is its input) or "encoder-decoder" (the prompt is the encoder's).
        eos: the tokens that end an answer.
        pad: the token that fills a batch's shorter rows.
        start: encoder-decoder: the token that an answer starts from.
    """

    kind: str
    eos: tuple[int, ...]
    pad: int
    start: int | None = None


@dataclass(frozen=True)
class Text:
    """How texts become rows of tokens, as the base's tokenizer has it.

    Attributes:
        max_length: the most tokens of a row, special ones included; longer texts are cut. None: no limit.
        truncation_side: the side on which a text loses what is too long; special tokens stay.
        padding_side: the side on which shorter rows are filled. pad: the token that fills them.
        lower_case: whether texts are lowered first; a tokenizer may do it by itself besides.
    """

    max_length: int | None = None
    truncation_side: str = "right"
    padding_side: str = "right"
    pad: int = 0
    lower_case: bool = False


@dataclass(frozen=True)
class FileEntry:
    """Size and SHA-256 (hexadecimal) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Sources:
    """What the bundle was made from, as far as it is not of one machine; `eptx._origin` has the rest.

    Attributes:
        base: whether a transformers folder. base_onnx: whether an ONNX file of the base.
        top_k: EPT: how many experts a task uses, where the export was told.
        tasks: the names of the adapter's tasks by id, where the export was told.
        problem_types: task -> its problem type, where the export was told.
    """

    base: bool
    base_onnx: bool
    top_k: int | None = None
    tasks: tuple[str, ...] | None = None
    problem_types: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Quantization:
    """How the weights of a quantized bundle are stored, and what it was promised to lose by that.

    Attributes:
        products: node that multiplies by a weight -> its scheme.
        embeddings: node that looks rows up in a table -> its scheme.
        budget: task -> how many points of its metric it may lose; empty where none was stated.
        metrics: task -> what is measured.
        rows: how many rows of a task were used at most.
    """

    products: Mapping[str, str]
    embeddings: Mapping[str, str]
    budget: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None


@dataclass(frozen=True)
class Manifest:
    """The content of ``eptx.json``; see docs/bundle.md for the meaning of each field."""

    generator: str
    mode: str
    method: str
    model_type: str
    precision: str
    provider: str
    tasks: tuple[Task, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sources: Sources
    fingerprints: Mapping[str, str]
    modules: Mapping[str, ModuleOutput]
    task_inference: bool = False
    operators: Operators | None = None
    routing: str | None = None
    route: Mapping[str, Any] | None = None
    quantization: Quantization | None = None
    generation: Generation | None = None
    encoder: Component | None = None
    text: Text | None = None
    vocab_size: int | None = None
    max_length: int | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def rows_share_route(self) -> bool:
        """Whether a row's answer depends on the other rows of its batch, so that requests must not share one."""
        return self.routing == "batch"

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Reads and checks a manifest.

        Raises:
            BundleError: a field is missing, unknown, of the wrong type or out of range, or the versions are
                not ones that this eptx reads.
        """
        return _manifest(Fields(value, where=MANIFEST_FILE, error=BundleError))


def _manifest(f: Fields) -> Manifest:
    _check_version(f.integer("schema_version"))
    manifest = Manifest(
        generator=f.string("generator"),
        mode=f.choice("mode", MODES),
        method=f.choice("method", METHODS),
        model_type=f.string("model_type"),
        precision=f.choice("precision", PRECISIONS),
        provider=f.choice("provider", PROVIDERS),
        tasks=tuple(_task(t) for t in f.children("tasks")),
        inputs=tuple(_tensor(t) for t in f.children("inputs")),
        outputs=tuple(_tensor(t) for t in f.children("outputs")),
        sources=_sources(f.child("sources")),
        fingerprints=f.child("fingerprints").strings(),
        modules={key: _module(m) for key, m in f.child("modules").items()},
        task_inference=f.boolean("task_inference"),
        operators=_operators(f.child("operators")) if f.present("operators") else None,
        routing=f.choice("routing", ROUTINGS) if f.present("routing") else None,
        route=_route(f.child("route")) if f.present("route") else None,
        quantization=_quantization(f.child("quantization")) if f.present("quantization") else None,
        generation=_generation(f.child("generation")) if f.present("generation") else None,
        encoder=_component(f.child("encoder")) if f.present("encoder") else None,
        text=_text(f.child("text")) if f.present("text") else None,
        vocab_size=f.count("vocab_size", least=1) if f.present("vocab_size") else None,
        max_length=f.count("max_length", least=1) if f.present("max_length") else None,
        files={name: _file(name, e) for name, e in f.child("files").items()},
    )
    f.done()
    _check(manifest)
    return manifest


def _task(f: Fields) -> Task:
    task = Task(
        name=f.string("name"),
        id=f.count("id"),
        labels=f.count("labels") if f.present("labels") else None,
        label_names=f.string_list("label_names") if f.present("label_names") else None,
        problem_type=f.choice("problem_type", PROBLEM_TYPES) if f.present("problem_type") else None,
    )
    if not all(name.isprintable() for name in (task.name, *(task.label_names or ()))):
        raise f.bad("has a name that cannot be printed")
    if task.label_names is not None and len(task.label_names) != task.labels:
        raise f.bad(f"has {len(task.label_names)} label names for {task.labels} labels")
    f.done()
    return task


def _route(f: Fields) -> dict[str, Any]:
    """The frozen routes of each task, one for each call of the router, and how far they are from the live ones.

    A call whose route is a constant of base and adapter is in no task's list; `constant` has it, by its number.
    """
    tasks = f.child("tasks")
    for frozen in (frozen for task in tasks.raw() for frozen in tasks.children(task)):
        _frozen(frozen)
    for frozen in f.children("constant"):
        frozen.count("call")
        _frozen(frozen)
    if f.present("frozen_error"):
        for _, error in f.child("frozen_error").items():
            if not all(_is_number(value) for value in error.raw().values()):
                raise error.bad("must hold numbers")
    f.done()
    return f.raw()


def _frozen(f: Fields) -> None:
    f.count("group")
    if not all(_is_number(weight) for weight in f.array("weights")):
        raise f.bad("weights must be a list of numbers")
    f.done()


def _quantization(f: Fields) -> Quantization:
    products, embeddings = f.child("products").strings(), f.child("embeddings").strings()
    budget = f.child("budget").raw()
    if not {*products.values(), *embeddings.values()} <= set(SCHEMES):
        raise f.bad(f"has a scheme that is not one of {', '.join(SCHEMES)}")
    if not all(_is_number(points) and 0 <= points < math.inf for points in budget.values()):
        raise f.bad("has a budget that is not a number of points")
    quantization = Quantization(
        products=products,
        embeddings=embeddings,
        budget=budget,
        metrics=f.child("metrics").strings(),
        rows=f.count("rows", least=1) if f.present("rows") else None,
    )
    f.done()
    return quantization


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tensor(f: Fields) -> TensorSpec:
    shape = f.array("shape")
    for dim in shape:
        if isinstance(dim, bool) or not isinstance(dim, str | int) or (isinstance(dim, int) and not 0 <= dim < COUNTS):
            raise f.bad("has a shape that is not a list of names and sizes")
    tensor = TensorSpec(f.string("name"), f.choice("dtype", TENSOR_DTYPES), tuple(shape))
    f.done()
    return tensor


def _module(f: Fields) -> ModuleOutput:
    columns = f.array("columns")
    if len(columns) != 2 or not all(type(c) is int for c in columns) or not 0 <= columns[0] < columns[1] < COUNTS:
        raise f.bad("has columns that are not [first, last]")
    unused = f.array("unused_experts") if f.present("unused_experts") else []
    if not all(type(expert) is int and 0 <= expert < _MOST_EXPERTS for expert in unused):
        raise f.bad("has unused experts that are not a list of their numbers")
    module = ModuleOutput(f.string("output"), (columns[0], columns[1]), f.boolean("bias"), tuple(unused))
    f.done()
    return module


def _operators(f: Fields) -> Operators:
    operators = Operators(f.string("domain"), f.integer("version"))
    f.done()
    if operators.domain != OPERATOR_DOMAIN:
        raise f.bad(f"names domain {operators.domain!r}; this eptx knows {OPERATOR_DOMAIN}")
    if operators.version != OPERATOR_VERSION:
        raise f.bad(f"is version {operators.version} of {OPERATOR_DOMAIN}; this eptx knows {OPERATOR_VERSION}")
    return operators


def _generation(f: Fields) -> Generation:
    eos = f.array("eos")
    if not eos or not all(type(token) is int and 0 <= token < COUNTS for token in eos):
        raise f.bad("eos must be a list of token ids")
    generation = Generation(
        kind=f.choice("kind", GENERATORS),
        eos=tuple(eos),
        pad=f.count("pad"),
        start=f.count("start") if f.present("start") else None,
    )
    if (generation.kind == "encoder-decoder") != (generation.start is not None):
        raise f.bad("an encoder-decoder has a token start, a decoder has none")
    f.done()
    return generation


def _text(f: Fields) -> Text:
    text = Text(
        max_length=f.count("max_length", least=1) if f.present("max_length") else None,
        truncation_side=f.choice("truncation_side", SIDES),
        padding_side=f.choice("padding_side", SIDES),
        pad=f.count("pad"),
        lower_case=f.boolean("lower_case"),
    )
    f.done()
    return text


def _component(f: Fields) -> Component:
    component = Component(
        file=f.string("file"),
        inputs=tuple(_tensor(t) for t in f.children("inputs")),
        outputs=tuple(_tensor(t) for t in f.children("outputs")),
        modules={key: _module(m) for key, m in f.child("modules").items()},
    )
    f.done()
    return component


def _sources(f: Fields) -> Sources:
    sources = Sources(
        base=f.boolean("base"),
        base_onnx=f.boolean("base_onnx"),
        top_k=f.count("top_k", least=1) if f.present("top_k") else None,
        tasks=f.string_list("tasks") if f.present("tasks") else None,
        problem_types=f.child("problem_types").strings() if f.present("problem_types") else None,
    )
    f.done()
    return sources


def _file(name: str, f: Fields) -> FileEntry:
    entry = FileEntry(f.integer("size", least=0), f.string("sha256"))
    f.done()
    if not is_contained_name(name):
        raise f.bad("is not a name inside the bundle")
    if name in (MANIFEST_FILE, *REPORT_FILES):
        raise f.bad("must not be listed")
    if len(entry.sha256) != 64 or not set(entry.sha256) <= set("0123456789abcdef"):
        raise f.bad("has no SHA-256 of 64 hexadecimal digits")
    return entry


def _check_version(version: int) -> None:
    if version != SCHEMA_VERSION:
        advice = "; upgrade eptx" if version > SCHEMA_VERSION else ""
        raise BundleError(f"{MANIFEST_FILE}: schema version {version}; this eptx reads {SCHEMA_VERSION}{advice}")


def _check(m: Manifest) -> None:
    """What must hold between fields."""
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
    if m.task_inference and (m.mode, m.method) != ("dynamic", "ept"):
        raise BundleError(f"{MANIFEST_FILE}: only a dynamic EPT bundle can infer the task")
    has_task_id = any(t.name == TASK_ID for t in m.inputs)
    if has_task_id and m.mode == "static":
        raise BundleError(f"{MANIFEST_FILE}: a static bundle has no input {TASK_ID}")
    if not has_task_id and (m.mode == "conditioned" or m.task_inference):
        raise BundleError(f"{MANIFEST_FILE}: the input {TASK_ID} is missing")
    _check_labels(m)
    _check_cache(m)
    _check_generation(m)
    if m.encoder is None:
        _check_routing(m)
    else:
        _check_encoder(m, m.encoder)


def logits_width(m: Manifest) -> int | None:
    """How many logits a row has, where ``eptx.json`` says: the graph is held to it."""
    shape = next((t.shape for t in m.outputs if t.name == LOGITS), ())
    return shape[-1] if shape and isinstance(shape[-1], int) else None


def _check_labels(m: Manifest) -> None:
    """A task's labels are logits that there are."""
    width = logits_width(m)
    for task in m.tasks:
        if task.labels and all(t.name != LOGITS for t in m.outputs):
            raise BundleError(f"{MANIFEST_FILE}: task {task.name} has labels; the model has no output {LOGITS}")
        if task.labels and width is not None and task.labels > width:
            raise BundleError(f"{MANIFEST_FILE}: task {task.name} has {task.labels} labels; a row has {width} logits")


def _check_routing(m: Manifest) -> None:
    """Where the route of the prompt is kept, it is given and said for each row; an encoder gives its own."""
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
    """What was computed before goes in where the same comes out."""
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
    tokens = (*m.generation.eos, m.generation.pad, m.generation.start or 0)
    width = logits_width(m)
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
