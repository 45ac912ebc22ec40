"""Decoders run on ONNX Runtime GenAI, which has a fast loop: attention over a shared cache, and the search."""

from __future__ import annotations

import importlib
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from eptx._one_line import one_line
from eptx.bundle import Bundle
from eptx.errors import BundleError, NotSupportedError, RequestError
from eptx.manifest.names import ROUTE_GROUP, ROUTE_WEIGHTS, TASK_ID, USED
from eptx.providers import CPU, PROVIDERS, keep_private
from eptx.runtime.generation.backend import DONE, Step
from eptx.runtime.generation.genai_folder import model_folder
from eptx.runtime.generation.request import Prompt
from eptx.runtime.generation.settings import MOST_ROWS, GenerationSettings
from eptx.runtime.ort.kernels import Kernels, open_with_kernels
from eptx.runtime.ort.sessions import check_release, wrapped_errors
from eptx.runtime.outputs import Array
from eptx.runtime.requests.rows import pad_rows

_NO_LIMIT = 2**31 - 1
_LEAST_TOP_P = 1e-6  # a smaller one is 0 as float32, which GenAI reads as no limit
_FAILS = "GenAI fails on this request"


class DecoderGenerator:
    """The `TokenGenerator` of decoder bundles."""

    def __init__(self, bundle: Bundle, provider: str, threads: int | None) -> None:
        generation = bundle.manifest.generation
        assert generation is not None
        self._generation = generation
        self._vocabulary = bundle.manifest.vocab_size
        self._experts = {i.name: i.shape[1] for i in bundle.manifest.inputs if i.name == ROUTE_WEIGHTS}
        self._genai = _genai()
        _check_provider(self._genai, provider)
        self._model, self.kernels = _open(self._genai, bundle, provider, threads)

    def tokens(
        self, prompts: Sequence[Prompt], task_ids: Array | None, settings: GenerationSettings
    ) -> Generator[Step, None, None]:
        """See `TokenGenerator.tokens`."""
        if len(prompts) > MOST_ROWS:
            raise RequestError(f"{len(prompts)} prompts in one batch; GenAI takes {MOST_ROWS}")
        rows = [list(map(int, prompt)) for prompt in prompts]
        ids = pad_rows(rows, self._generation.pad, np.int32)
        with wrapped_errors(_FAILS, RequestError):
            generator = self._generator(ids.shape[1], len(prompts), settings)
            chosen = self._chosen(len(prompts), task_ids)
            for name, array in chosen.items():
                generator.set_model_input(name, array)
            generator.append_tokens(ids)
            _keep(generator, chosen)
        live = np.ones(len(prompts), bool)
        for _ in range(settings.max_new_tokens):
            with wrapped_errors(_FAILS, RequestError):
                # before the token is chosen, since choosing changes them in place
                logits = None if settings.top_logprobs is None else np.array(generator.get_logits())[:, -1]
                generator.generate_next_token()
                tokens = np.where(live, generator.get_next_tokens(), DONE).astype(np.int64)
            yield Step(tokens, logits)
            live &= ~np.isin(tokens, self._generation.eos)
            if not live.any():
                return

    def _generator(self, length: int, rows: int, settings: GenerationSettings) -> Any:
        params = self._genai.GeneratorParams(self._model)
        search: dict[str, float] = {
            "max_length": length + settings.max_new_tokens,
            "batch_size": rows,
            "do_sample": not settings.greedy,
        }
        if not settings.greedy:
            search["temperature"] = settings.temperature
            search["top_k"] = min(settings.top_k or 0, self._vocabulary or _NO_LIMIT)
            search["top_p"] = max(settings.top_p or 1.0, _LEAST_TOP_P)
            search["random_seed"] = -1 if settings.seed is None else settings.seed
        params.set_search_options(**search)
        return self._genai.Generator(self._model, params)

    def _chosen(self, rows: int, task_ids: Array | None) -> dict[str, Array]:
        """The inputs that choose each row's task and route; -1 leaves the choice to the model."""
        chosen: dict[str, Array] = {} if task_ids is None else {TASK_ID: task_ids}
        for name, experts in self._experts.items():
            chosen[ROUTE_GROUP] = np.full(rows, -1, np.int64)
            chosen[name] = np.zeros((rows, int(experts)), np.float32)
        return chosen


def _keep(generator: Any, chosen: dict[str, Array]) -> None:
    """Makes every later step use the task and route that the model chose in the prompt's step.

    GenAI takes an input once, but reads the caller's array in every step.
    """
    free = [name for name in (TASK_ID, ROUTE_GROUP) if name in chosen and chosen[name].min() < 0]
    names = [n for name in free for n in ((name,) if name == TASK_ID else (ROUTE_GROUP, ROUTE_WEIGHTS))]
    for name in names:
        chosen[name][...] = generator.get_output(f"{name}{USED}")
        if not np.array_equal(generator.get_input(name), chosen[name]):
            raise RuntimeError(f"it does not see that {name} changed; eptx does not know this onnxruntime-genai")


def _genai() -> Any:
    keep_private()
    try:
        module = importlib.import_module("onnxruntime_genai")
    except ImportError as e:
        raise NotSupportedError(
            f"generating text needs onnxruntime-genai ({one_line(e)}); pip install 'eptx[generate]'"
        ) from None
    module.disable_telemetry_events()  # a program's use of a model is private
    return module


def _check_provider(genai: Any, provider: str) -> None:
    package = PROVIDERS[provider].genai
    if package is None:
        able = ", ".join(name for name, row in PROVIDERS.items() if row.genai is not None)
        raise NotSupportedError(f"provider {provider}: decoders generate on {able} only; run gives their logits")
    if provider != CPU and not getattr(genai, f"is_{provider}_available")():
        raise NotSupportedError(f"provider {provider}: onnxruntime-genai has none here; pip install {package}")


def _open(genai: Any, bundle: Bundle, provider: str, threads: int | None) -> tuple[Any, Kernels]:
    check_release(bundle)

    def open_model(kernels: Kernels) -> tuple[Any, Kernels]:
        with (
            model_folder(bundle, provider, threads, kernels) as folder,
            wrapped_errors(f"{bundle.model.name}: GenAI does not load it", BundleError),
        ):
            return genai.Model(genai.Config(str(folder))), kernels

    return open_with_kernels(bundle, provider, open_model)
