"""Reads ``eptx.json``, section by section, and checks what each section says by itself."""

from __future__ import annotations

import math
import re
from typing import Any

from eptx.errors import BundleError
from eptx.files.fields import COUNTS, Fields
from eptx.files.safe_files import is_contained_name
from eptx.manifest.content import (
    AnswerRules,
    Component,
    Embedding,
    EmbeddingLayer,
    FileEntry,
    Generation,
    Manifest,
    ModuleOutput,
    OnnxRuntime,
    Operators,
    Quantization,
    Sources,
    Task,
    TensorSpec,
    Text,
)
from eptx.manifest.image import read_image
from eptx.manifest.names import (
    ACTIVATIONS,
    EXPORT_PROVIDERS,
    GENERATORS,
    MANIFEST_FILE,
    MODES,
    OPERATOR_DOMAIN,
    OPERATOR_VERSION,
    POOLINGS,
    PRECISIONS,
    PROBLEM_TYPES,
    REPORT_FILES,
    ROUTINGS,
    SCHEMA_VERSION,
    SCHEMES,
    SIDES,
    TENSOR_DTYPES,
)
from eptx.manifest.rules import check_rules

#: Every expert's number is smaller.
_MOST_EXPERTS = 1 << 16
_RELEASE = re.compile("[0-9]{1,4}[.][0-9]{1,4}")


def read_manifest(value: Any) -> Manifest:
    """The manifest that JSON holds.

    Args:
        value: the object of ``eptx.json``, as `eptx.files.strict_json` reads it.

    Raises:
        BundleError: a field is missing, unknown or wrong, two contradict each other, or a version is a newer one.
    """
    f = Fields(value, where=MANIFEST_FILE, error=BundleError)
    _check_version(f.integer("schema_version"))
    manifest = Manifest(
        generator=f.string("generator"),
        mode=f.choice("mode", MODES),
        method=f.name("method"),
        model_type=f.string("model_type"),
        precision=f.choice("precision", PRECISIONS),
        provider=f.choice("provider", EXPORT_PROVIDERS),
        tasks=tuple(t.read(_task) for t in f.children("tasks")),
        inputs=tuple(t.read(_tensor) for t in f.children("inputs")),
        outputs=tuple(t.read(_tensor) for t in f.children("outputs")),
        sources=f.child("sources").read(_sources),
        fingerprints=f.child("fingerprints").strings(),
        modules={key: m.read(_module) for key, m in f.child("modules").items()},
        task_inference=f.boolean("task_inference"),
        operators=f.child("operators").read(_operators) if f.present("operators") else None,
        onnxruntime=f.child("onnxruntime").read(_onnxruntime) if f.present("onnxruntime") else None,
        routing=f.choice("routing", ROUTINGS) if f.present("routing") else None,
        route=f.child("route").read(_route) if f.present("route") else None,
        quantization=f.child("quantization").read(_quantization) if f.present("quantization") else None,
        generation=f.child("generation").read(_generation) if f.present("generation") else None,
        encoder=f.child("encoder").read(_component) if f.present("encoder") else None,
        text=f.child("text").read(_text) if f.present("text") else None,
        image=f.child("image").read(read_image) if f.present("image") else None,
        embedding=f.child("embedding").read(_embedding) if f.present("embedding") else None,
        vocab_size=f.count("vocab_size", least=1) if f.present("vocab_size") else None,
        max_length=f.count("max_length", least=1) if f.present("max_length") else None,
        files={name: _file(name, e) for name, e in f.child("files").items()},
    )
    f.done()
    check_rules(manifest)
    return manifest


def _task(f: Fields) -> Task:
    task = Task(
        name=f.string("name"),
        id=f.count("id"),
        labels=f.count("labels") if f.present("labels") else None,
        label_names=f.string_list("label_names") if f.present("label_names") else None,
        problem_type=f.choice("problem_type", PROBLEM_TYPES) if f.present("problem_type") else None,
        vocab_size=f.count("vocab_size", least=1) if f.present("vocab_size") else None,
    )
    if not all(name.isprintable() for name in (task.name, *(task.label_names or ()))):
        raise f.bad("has a name that cannot be printed")
    if task.label_names is not None and len(task.label_names) != task.labels:
        raise f.bad(f"has {len(task.label_names)} label names for {task.labels} labels")
    return task


def _route(f: Fields) -> dict[str, Any]:
    """The frozen routes of each task, one for each call of the router, and how far they are from the live ones.

    Where base and adapter alone decide a call's route, `constant` has it, by the number of the call. Where every module
    has a router, the routes are one for each of `modules`.
    """
    tasks = f.child("tasks")
    for frozen in (frozen for task in tasks.raw() for frozen in tasks.children(task)):
        frozen.read(_frozen)
    if f.present("modules") and {len(tasks.children(task)) for task in tasks.raw()} != {len(f.string_list("modules"))}:
        raise f.bad("must have a route for each of its modules")
    for frozen in f.children("constant"):
        frozen.count("call")
        frozen.read(_frozen)
    if f.present("frozen_error"):
        for _, error in f.child("frozen_error").items():
            if not all(_is_number(value) for value in error.raw().values()):
                raise error.bad("must hold numbers")
    return f.raw()


def _frozen(f: Fields) -> None:
    f.count("group")
    f.numbers("weights")


def _quantization(f: Fields) -> Quantization:
    products, embeddings = f.child("products").strings(), f.child("embeddings").strings()
    budget = f.child("budget").raw()
    if not {*products.values(), *embeddings.values()} <= set(SCHEMES):
        raise f.bad(f"has a scheme that is not one of {', '.join(SCHEMES)}")
    if not all(_is_number(points) and 0 <= points < math.inf for points in budget.values()):
        raise f.bad("has a budget that is not a number of points")
    return Quantization(
        products=products,
        embeddings=embeddings,
        budget=budget,
        metrics=f.child("metrics").strings(),
        rows=f.count("rows", least=1) if f.present("rows") else None,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tensor(f: Fields) -> TensorSpec:
    shape = f.array("shape")
    for dim in shape:
        if isinstance(dim, bool) or not isinstance(dim, str | int) or (isinstance(dim, int) and not 0 <= dim < COUNTS):
            raise f.bad("has a shape that is not a list of names and sizes")
    return TensorSpec(f.string("name"), f.choice("dtype", TENSOR_DTYPES), tuple(shape))


def _module(f: Fields) -> ModuleOutput:
    columns = f.array("columns")
    if len(columns) != 2 or not all(type(c) is int for c in columns) or not 0 <= columns[0] < columns[1] < COUNTS:
        raise f.bad("has columns that are not [first, last]")
    unused = f.array("unused_experts") if f.present("unused_experts") else []
    if not all(type(expert) is int and 0 <= expert < _MOST_EXPERTS for expert in unused):
        raise f.bad("has unused experts that are not a list of their numbers")
    return ModuleOutput(f.string("output"), (columns[0], columns[1]), f.boolean("bias"), tuple(unused))


def _operators(f: Fields) -> Operators:
    operators = Operators(f.string("domain"), f.integer("version"))
    if operators.domain != OPERATOR_DOMAIN:
        raise f.bad(f"names domain {operators.domain!r}; this eptx knows {OPERATOR_DOMAIN}")
    if operators.version != OPERATOR_VERSION:
        raise f.bad(f"is version {operators.version} of {OPERATOR_DOMAIN}; this eptx knows {OPERATOR_VERSION}")
    return operators


def _onnxruntime(f: Fields) -> OnnxRuntime:
    needed = OnnxRuntime(f.string("version"), f.count("ir_version", least=1), f.count("opset", least=1))
    if not _RELEASE.fullmatch(needed.version):
        raise f.bad('has a version that is no release such as "1.17"')
    return needed


def _generation(f: Fields) -> Generation:
    eos = _tokens(f, "eos", f.array("eos"))
    if not eos:
        raise f.bad("eos must be a list of token ids")
    generation = Generation(
        kind=f.choice("kind", GENERATORS),
        eos=eos,
        pad=f.count("pad"),
        start=f.count("start") if f.present("start") else None,
        longest=f.count("longest", least=1) if f.present("longest") else None,
        rules=f.child("rules").read(_answer_rules) if f.present("rules") else None,
    )
    if (generation.kind == "encoder-decoder") != (generation.start is not None):
        raise f.bad("an encoder-decoder has a token start, a decoder has none")
    if generation.kind == "decoder" and (generation.rules, generation.longest) != (None, None):
        raise f.bad("rules and longest are of an encoder-decoder")
    return generation


def _answer_rules(f: Fields) -> AnswerRules:
    rules = AnswerRules(
        forced=tuple(_tokens(f, "forced", place) for place in f.array("forced")),
        suppress_tokens=_tokens(f, "suppress_tokens", f.array("suppress_tokens")),
        begin_suppress_tokens=_tokens(f, "begin_suppress_tokens", f.array("begin_suppress_tokens")),
        min_length=f.count("min_length"),
        no_repeat_ngram_size=f.count("no_repeat_ngram_size"),
        encoder_no_repeat_ngram_size=f.count("encoder_no_repeat_ngram_size"),
        repetition_penalty=f.number("repetition_penalty"),
        forced_eos=f.count("forced_eos") if f.present("forced_eos") else None,
    )
    if not all(rules.forced):
        raise f.bad("forced has a place without a token")
    if not rules.repetition_penalty > 0:
        raise f.bad("repetition_penalty must be above 0")
    return rules


def _tokens(f: Fields, name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(token) is int and 0 <= token < COUNTS for token in value):
        raise f.bad(f"{name} must be a list of token ids")
    return tuple(value)


def _text(f: Fields) -> Text:
    return Text(
        max_length=f.count("max_length", least=1) if f.present("max_length") else None,
        truncation_side=f.choice("truncation_side", SIDES),
        padding_side=f.choice("padding_side", SIDES),
        pad=f.count("pad"),
        lower_case=f.boolean("lower_case"),
    )


def _embedding(f: Fields) -> Embedding:
    pooling = f.string_list("pooling")
    if not pooling or not {*pooling} <= {*POOLINGS}:
        raise f.bad(f"pooling must be a list of {', '.join(POOLINGS)}")
    return Embedding(pooling, tuple(each.read(_layer) for each in f.children("layers")), f.boolean("normalize"))


def _layer(f: Fields) -> EmbeddingLayer:
    return EmbeddingLayer(f.count("size", least=1), f.choice("activation", ACTIVATIONS))


def _component(f: Fields) -> Component:
    return Component(
        file=f.string("file"),
        inputs=tuple(t.read(_tensor) for t in f.children("inputs")),
        outputs=tuple(t.read(_tensor) for t in f.children("outputs")),
        modules={key: m.read(_module) for key, m in f.child("modules").items()},
    )


def _sources(f: Fields) -> Sources:
    return Sources(
        base=f.boolean("base"),
        base_onnx=f.boolean("base_onnx"),
        top_k=f.count("top_k", least=1) if f.present("top_k") else None,
        tasks=f.string_list("tasks") if f.present("tasks") else None,
        problem_types=f.child("problem_types").strings() if f.present("problem_types") else None,
        model_class=f.string("model_class") if f.present("model_class") else None,
        label_names=_lists(f.child("label_names")) if f.present("label_names") else None,
        min_ort=f.string("min_ort") if f.present("min_ort") else None,
    )


def _lists(f: Fields) -> dict[str, tuple[str, ...]]:
    return {key: f.string_list(key) for key in f.raw()}


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
