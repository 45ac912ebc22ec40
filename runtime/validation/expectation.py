"""What a bundle should compute, and how much of a difference is rounding: what the reference has given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic

from eptx.runtime.validation.distance import Spreads
from eptx.runtime.validation.expected import Expected, V
from eptx.runtime.validation.routers import ExpertTable


@dataclass(frozen=True)
class LiveRoute:
    """How far frozen routes are from the live ones, on the user's data.

    Attributes:
        rows: how many.
        group_agreement: the share of them for which the live route chooses the frozen group; None where nothing is
            chosen, because routers weigh all experts.
        relative_rms: ``task/output`` -> root mean square of the difference over that of the live values.
    """

    rows: int
    group_agreement: float | None
    relative_rms: Mapping[str, float]


@dataclass
class Floors:
    """How large the values are, and how much of a difference is rounding.

    Attributes:
        columns: how many numbers of each place it is measured on, as `eptx.runtime.validation.values` samples them;
            None: all. What is sampled needs floors of its sample: in some layers one feature outweighs all others.
        noise: own type less float64, the largest of a few runs. scale: the float64 values.
        effect: adapter on less adapter off.
    """

    columns: int | None = None
    noise: Spreads = field(default_factory=Spreads)
    scale: Spreads = field(default_factory=Spreads)
    effect: Spreads = field(default_factory=Spreads)


@dataclass
class Expectation(Generic[V]):
    """What the bundle should compute on all batches, and how much of a difference is rounding.

    Attributes:
        batches: the expected results.
        floors: of what is compared.
        sampled: of the samples of a proof that is to be recorded; of random batches alone.
        experts: EPT: what every module's router chooses.
        unclear: EPT: task -> a module where rounding decides which experts the task uses.
        redrawn: how many batches were drawn again because of a router tie.
        live: how far frozen routes are from the live ones; None without data, or without such routes.
        wrong: linear layer -> what is wrong with its quantized weight.
        folded: module of a static quantized bundle -> the effect of its task's update, in noise floors.
        modules: the adapted modules, as the adapter's files name them; without those that the bundle says nothing of
            and that change no output.
        class_name: the transformers class that was trained.
    """

    batches: list[Expected[V]] = field(default_factory=list)
    floors: Floors = field(default_factory=Floors)
    sampled: Floors | None = None
    experts: dict[str, ExpertTable] = field(default_factory=dict)
    unclear: dict[str, str] = field(default_factory=dict)
    redrawn: int = 0
    live: LiveRoute | None = None
    wrong: dict[str, str] = field(default_factory=dict)
    folded: dict[str, float] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    class_name: str = ""
