"""The search for the smallest or fastest bundle within every task's budget.

Each scheme is tried alone first. One that drops too far, and would be better than the best so far, is repaired: its
most sensitive layers are kept in float16, as few as suffice. Keeping more drops less, so bisection finds how many;
the order is that of each layer's own sensitivity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from eptx.calibration.quantize import Scheme
from eptx.calibration.quantize.config import BUILT, FP32, QuantizationConfig
from eptx.calibration.quantize.layers import Layer
from eptx.calibration.search.evaluator import Evaluator
from eptx.calibration.search.trial import Budget, Trial
from eptx.progress import duration, note, step

#: A study also keeps these shares of the layers, to show what that gives.
_SHARES = (0.1, 0.25, 0.5)


@dataclass
class SearchResult:
    """What a search has measured.

    Attributes:
        trials: in the order of the search, the float32 bundle first.
        sensitivity: scheme -> task -> divergence for each layer.
        chosen: the best config within the budget.
        others: bundles that were measured beside.
    """

    trials: dict[QuantizationConfig, Trial] = field(default_factory=dict)
    sensitivity: dict[Scheme, dict[str, list[float]]] = field(default_factory=dict)
    chosen: QuantizationConfig = FP32
    others: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial:
        """The trial of the best config within the budget."""
        return self.trials[self.chosen]


class Searcher:
    """One search.

    Args:
        evaluator: of the model.
        budget: task -> points that it may drop.
        schemes: what is tried.
        study: the scheme that `study` will be asked for, of which estimates of the duration know; None: it will not.
    """

    def __init__(
        self, evaluator: Evaluator, budget: Budget, schemes: Sequence[Scheme], study: Scheme | None = None
    ) -> None:
        self._evaluator, self._budget, self._schemes, self._study = evaluator, budget, schemes, study
        self.result = SearchResult()

    def run(self) -> SearchResult:
        """Tries every scheme alone, then with layers kept."""
        alone = [QuantizationConfig(scheme) for scheme in (FP32.scheme, *self._schemes)]
        told = False
        for number, config in enumerate(alone, 1):
            self._try(config)
            told = told or self._tell(alone[number:], [c.scheme for c in alone if c.scheme not in (FP32.scheme, BUILT)])
        trials = self.result.trials
        over = [c for c, trial in trials.items() if not trial.within(self._budget) and c.scheme != BUILT]
        over = [c for c in over if self._cost(trials[c]) < self._cost(self.result.best)]
        self._tell([], [config.scheme for config in over])
        for config in sorted(over, key=lambda c: self._cost(trials[c])):
            if self._cost(trials[config]) < self._cost(self.result.best):
                self._repair(config.scheme)
        return self.result

    def _tell(self, coming: Sequence[QuantizationConfig], repaired: Sequence[Scheme]) -> bool:
        """Says how long the rest will take.

        Args:
            coming: what is tried for sure.
            repaired: schemes of which layers may have to be kept.

        Returns:
            whether it could, or there is nothing left: before the first measurement nothing is known.
        """
        studied = [] if self._study is None else [self._study]
        trials = len(_SHARES) * len(studied)
        halvings = math.ceil(math.log2(max(2, len(self._evaluator.layers))))
        least = self._evaluator.estimate(coming, trials, studied)
        most = self._evaluator.estimate(coming, trials + halvings * len(repaired), [*{*studied, *repaired}])
        if least is None or most is None:
            return False
        if most:
            known = f"about {duration(least)} left" if least else "little is left"
            more = f", up to {duration(most)} where layers have to be kept in float16" if repaired else ""
            note(known + more)
        return True

    def study(self, scheme: Scheme) -> SearchResult:
        """Adds what a report shows: every layer's sensitivity, and trials that keep the most sensitive layers."""
        order = self.by_sensitivity(scheme)
        for share in _SHARES:
            count = max(1, round(share * len(order)))
            self._try(QuantizationConfig(scheme, tuple(layer.name for layer in order[:count])))
        return self.result

    def by_sensitivity(self, scheme: Scheme) -> list[Layer]:
        """The layers, those with the largest divergence of any task first; of equals the smaller, which costs less."""
        layers = self._evaluator.layers
        if scheme not in self.result.sensitivity:
            table: dict[str, list[float]] = {task: [] for task in self._evaluator.rows}
            for index, layer in enumerate(layers):
                with step(f"sensitivity of {scheme}, {index + 1} of {len(layers)}: {layer.name}"):
                    for task, moved in self._evaluator.sensitivity(scheme, layer).items():
                        table[task].append(moved)
            self.result.sensitivity[scheme] = table
        by_task = self.result.sensitivity[scheme].values()
        worst = [max(own[index] for own in by_task) for index in range(len(layers))]
        order = sorted(range(len(layers)), key=lambda index: (-worst[index], layers[index].weights))
        return [layers[index] for index in order]

    def _repair(self, scheme: Scheme) -> None:
        """Keeps the fewest layers with which the scheme is within the budget, while that is better than the best."""
        names = [layer.name for layer in self.by_sensitivity(scheme)]
        low, high = 0, len(names)  # low is too few; high suffices, or is all
        while high - low > 1:
            middle = (low + high) // 2
            trial = self._try(QuantizationConfig(scheme, tuple(names[:middle])))
            if trial.within(self._budget):
                high = middle
            elif self._cost(trial) >= self._cost(self.result.best):
                break  # keeping more costs even more
            else:
                low = middle

    def _try(self, config: QuantizationConfig) -> Trial:
        with step(f"trying {config.name}"):
            trial = self._evaluator.trial(config)
        self.result.trials[config] = trial
        if trial.within(self._budget) and self._cost(trial) < self._cost(self.result.best):
            self.result.chosen = config
        return trial

    def _cost(self, trial: Trial) -> float:
        return float(trial.bytes if self._evaluator.options.goal == "size" else trial.latency_ratio)
