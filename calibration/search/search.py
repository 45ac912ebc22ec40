"""The search for the smallest or fastest bundle within every task's budget.

Each fixed setting is tried first. One that loses too much, and would be better than the best so far, is repaired: the
layers that damage some task most are kept in float16, as few as do. How few is found by bisection, since keeping more
loses less; the order is that of the measured damage of each layer by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eptx.progress import step
from eptx.calibration.quantize.layers import Group
from eptx.calibration.quantize import Scheme
from eptx.calibration.quantize.config import BUILT, REFERENCE, Setting
from eptx.calibration.search.evaluator import Trial, Evaluator

#: Of these shares of the layers a study shows what keeping them gives.
_SHARES = (0.1, 0.25, 0.5)


@dataclass
class Found:
    """What a search has seen.

    Attributes:
        trials: in the order of the search, the float32 bundle first; setting -> trial.
        damage: scheme -> task -> divergence of every group.
        chosen: the best setting within the budget.
        others: bundles that were measured beside.
    """

    trials: dict[Setting, Trial] = field(default_factory=dict)
    damage: dict[Scheme, dict[str, list[float]]] = field(default_factory=dict)
    chosen: Setting = field(default_factory=lambda: Setting(REFERENCE))
    others: list[Trial] = field(default_factory=list)


class Search:
    """One search.

    Args:
        bench: the model.
        budget: task -> points that it may lose.
        schemes: the fixed settings to try.
    """

    def __init__(self, bench: Evaluator, budget: Mapping[str, float], schemes: Sequence[Scheme]) -> None:
        self._bench, self._budget, self._schemes = bench, budget, schemes
        self.found = Found()

    def run(self) -> Found:
        """Tries every fixed setting, then mixed ones."""
        for scheme in (REFERENCE, *self._schemes):
            self._try(Setting(scheme))
        over = [s for s, trial in self.found.trials.items() if not self._within(trial) and s.scheme != BUILT]
        for setting in sorted(over, key=lambda s: self._cost(self.found.trials[s])):
            if self._cost(self.found.trials[setting]) < self._cost(self.found.trials[self.found.chosen]):
                self._repair(setting.scheme)
        return self.found

    def study(self, scheme: Scheme) -> Found:
        """Adds what a report shows: the damage of every layer, and what keeping the worst of them gives."""
        order = self.by_damage(scheme)
        for share in _SHARES:
            count = max(1, round(share * len(order)))
            self._try(Setting(scheme, tuple(group.name for group in order[:count])))
        return self.found

    def by_damage(self, scheme: Scheme) -> list[Group]:
        """The groups, the one that damages a task most first; of equals the larger one last, which costs more."""
        groups = self._bench.groups
        if scheme not in self.found.damage:
            table: dict[str, list[float]] = {task: [] for task in self._bench.rows}
            for index, group in enumerate(groups):
                with step(f"sensitivity of {scheme}, {index + 1} of {len(groups)}: {group.name}"):
                    for task, moved in self._bench.damage(scheme, group).items():
                        table[task].append(moved)
            self.found.damage[scheme] = table
        damage = self.found.damage[scheme]
        worst = [max(own[index] for own in damage.values()) for index in range(len(groups))]
        order = sorted(range(len(groups)), key=lambda index: (-worst[index], groups[index].weights))
        return [groups[index] for index in order]

    def _repair(self, scheme: Scheme) -> None:
        """Keeps the fewest groups with which the scheme stays within the budget, if that is worth it."""
        names = [group.name for group in self.by_damage(scheme)]
        low, high = 0, len(names)  # low is too few; high is enough, or everything
        while high - low > 1:
            middle = (low + high) // 2
            trial = self._try(Setting(scheme, tuple(names[:middle])))
            if self._within(trial):
                high = middle
            elif self._cost(trial) >= self._cost(self.found.trials[self.found.chosen]):
                break  # what keeps more costs more still
            else:
                low = middle

    def _try(self, setting: Setting) -> Trial:
        with step(f"trying {setting.name}"):
            trial = self._bench.trial(setting)
        self.found.trials[setting] = trial
        if self._within(trial) and self._cost(trial) < self._cost(self.found.trials[self.found.chosen]):
            self.found.chosen = setting
        return trial

    def _within(self, trial: Trial) -> bool:
        return trial.within(self._budget)

    def _cost(self, trial: Trial) -> float:
        return float(trial.bytes if self._bench.options.goal == "size" else trial.latency_ratio)
