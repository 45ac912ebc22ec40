"""The content of ``eptx.json``, one class for each section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from eptx.manifest.image import Image
from eptx.manifest.names import OPERATOR_DOMAIN, OPERATOR_VERSION, SCHEMA_VERSION


@dataclass(frozen=True)
class Task:
    """One task of a bundle.

    Attributes:
        name: how a request names it.
        id: its value of the graph input ``task_id``.
        labels: how many of a row's logits belong to it, the first ones; None where that is not told: all of them.
        label_names: the names of these, where the exporter knows them.
        problem_type: what its logits mean, one of `PROBLEM_TYPES`; None without logits.
        vocab_size: how many tokens it has, where they are fewer than the model's: the first ones; None: all of them.
    """

    name: str
    id: int
    labels: int | None = None
    label_names: tuple[str, ...] | None = None
    problem_type: str | None = None
    vocab_size: int | None = None


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output. A dimension is a number, or a name where it varies."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]


@dataclass(frozen=True)
class Operators:
    """The domain and version of the operators that the model defines for itself."""

    domain: str = OPERATOR_DOMAIN
    version: int = OPERATOR_VERSION


@dataclass(frozen=True)
class OnnxRuntime:
    """Which ONNX Runtime runs the models.

    Attributes:
        version: the first release that loads them, such as "1.17".
        ir_version: the newest IR version among them. opset: the newest opset of ``ai.onnx`` among them.
    """

    version: str
    ir_version: int
    opset: int


@dataclass(frozen=True)
class ModuleOutput:
    """Where an adapted module's output is in the model.

    Attributes:
        output: the name of the value.
        columns: first and last (exclusive) feature of the module in it.
        bias: whether the module's bias is added already.
        unused_experts: EPT, conditioned: experts of the adapter that no task uses. The model leaves them out.
    """

    output: str
    columns: tuple[int, int]
    bias: bool
    unused_experts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Component:
    """Another model of the bundle: the encoder of an encoder-decoder.

    An output whose name is an input of ``model.onnx`` is fed there.

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
class AnswerRules:
    """What the tokens of an answer obey, in the words of transformers' ``GenerationConfig``; the base's says it.

    Attributes:
        forced: what every answer begins with, behind ``start``: at each place one token, or several of which the
            likeliest is taken (the language of a sound).
        suppress_tokens: tokens that no answer holds. begin_suppress_tokens: tokens that none goes on with behind
            ``forced``.
        min_length: how many tokens there are, ``start`` and ``forced`` counted, before one may end the answer.
        no_repeat_ngram_size: no run of so many tokens comes twice in an answer; 0: any may.
        encoder_no_repeat_ngram_size: no run of so many tokens of the prompt comes in the answer; 0: any may.
        repetition_penalty: what logits of tokens that the answer holds are divided by, negative ones multiplied.
        forced_eos: the token in the last place of an answer that gets as long as it may; None: whichever is chosen.
    """

    forced: tuple[tuple[int, ...], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    min_length: int = 0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    forced_eos: int | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """All tokens that they name."""
        return (
            *(token for place in self.forced for token in place),
            *self.suppress_tokens,
            *self.begin_suppress_tokens,
            *(() if self.forced_eos is None else (self.forced_eos,)),
        )


@dataclass(frozen=True)
class Generation:
    """How ``model.onnx`` generates text, one token after the other.

    The inputs ``past_key_values.<name>`` [batch, heads, past, head size] hold its cache; it is empty at first. The
    outputs ``present.<name>`` are the next cache. Rows are padded on the right.

    Attributes:
        kind: "decoder" (GenAI's graph, which reads the prompt) or "encoder-decoder" (the encoder reads the prompt).
        eos: the tokens that end an answer.
        pad: the token that fills a batch's shorter rows.
        start: encoder-decoder: the token that an answer starts from.
        longest: encoder-decoder: the most tokens of an answer, `start` and what is forced counted; None: no limit.
        rules: encoder-decoder: what the tokens of an answer obey.
    """

    kind: str
    eos: tuple[int, ...]
    pad: int
    start: int | None = None
    longest: int | None = None
    rules: AnswerRules | None = None


@dataclass(frozen=True)
class Text:
    """How texts become rows of tokens; the base's tokenizer says it.

    Attributes:
        max_length: the most tokens of a row, special tokens included; longer texts are cut. None: no limit.
        truncation_side: the side where a long text is cut. Special tokens stay.
        padding_side: the side where shorter rows are filled. pad: the token that fills them.
        lower_case: whether texts are put in lower case first. A tokenizer may also do it by itself.
    """

    max_length: int | None = None
    truncation_side: str = "right"
    padding_side: str = "right"
    pad: int = 0
    lower_case: bool = False


@dataclass(frozen=True)
class EmbeddingLayer:
    """A linear layer of an embedding.

    Attributes:
        size: how many numbers it gives.
        activation: what is applied to them, one of `ACTIVATIONS`.
    """

    size: int
    activation: str


@dataclass(frozen=True)
class Embedding:
    """How the output ``embedding`` is computed of ``last_hidden_state``; a sentence-transformers folder says it.

    Attributes:
        pooling: how a row's tokens become one vector, of `POOLINGS`; of several, the vectors stand one after the other.
        layers: linear layers behind that, in order.
        normalize: whether the result has length 1.
    """

    pooling: tuple[str, ...]
    layers: tuple[EmbeddingLayer, ...] = ()
    normalize: bool = False


@dataclass(frozen=True)
class FileEntry:
    """Size and SHA-256 (hexadecimal) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Sources:
    """What the bundle was made from. Paths, which differ between machines, are in `eptx.bundle.origin`.

    Attributes:
        base: whether there was a transformers folder. base_onnx: whether there was an ONNX file of the base.
        top_k, ...: what options said; None where none did. EPT: how many experts a task uses.
        tasks: the names of the adapter's tasks by id. problem_types: task -> its problem type.
        model_class: the transformers class that the base was loaded as. label_names: task -> the names of its labels.
        min_ort: the release of ONNX Runtime that must load the bundle.
    """

    base: bool
    base_onnx: bool
    top_k: int | None = None
    tasks: tuple[str, ...] | None = None
    problem_types: Mapping[str, str] | None = None
    model_class: str | None = None
    label_names: Mapping[str, tuple[str, ...]] | None = None
    min_ort: str | None = None


@dataclass(frozen=True)
class Quantization:
    """How the weights of a quantized bundle are stored, and what that may cost.

    Attributes:
        products: node that multiplies by a weight -> its scheme.
        embeddings: node that looks rows up in a table -> its scheme.
        budget: task -> how many points of its metric it may lose; empty without a budget.
        metrics: task -> what is measured.
        rows: the most rows of a task that were measured.
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
    onnxruntime: OnnxRuntime | None = None
    routing: str | None = None
    route: Mapping[str, Any] | None = None
    quantization: Quantization | None = None
    generation: Generation | None = None
    encoder: Component | None = None
    text: Text | None = None
    image: Image | None = None
    embedding: Embedding | None = None
    vocab_size: int | None = None
    max_length: int | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def shared_vocab_size(self) -> int | None:
        """How many tokens all tasks have, the first ones; None where that is not known."""
        known = [size for size in (self.vocab_size, *(task.vocab_size for task in self.tasks)) if size is not None]
        return min(known, default=None)

    @property
    def rows_share_route(self) -> bool:
        """Whether a row's answer depends on the other rows of its batch, so that requests must not share one."""
        return self.routing == "batch"

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON types."""
        return asdict(self)
