"""The rules by which quantizers compute scales, zero points and codes, and the check that stored ones follow one.

ONNX Runtime's quantizers (``quant_utils.compute_scale_zp``, MLAS's blocks) and GenAI's builder, with [lowest, highest]
the range of a group of weights, 0 within it, and `n` codes:

- symmetric: the largest magnitude over the codes on one side: int8 127 (reduced range: 64), uint8 127.5 (63.5);
- asymmetric: the width of the range over ``n - 1``, and the zero point where the lowest falls on the first code;
- blocks, symmetric: the extreme weight is the first code, so a scale has its sign turned (MLAS), or as above (RTN);
- blocks whose scale is searched for (k-quant, HQQ): no formula; the error is not much above the asymmetric rule's.

A code is then the nearest one, so a weight is off by at most half a step, except past the first or last code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eptx.exporter.validation.quantized.codes import Codes

#: Relative tolerance of a scale: rounding of a folded weight in float32, and of a division.
_SCALE = 2e-6
#: Tolerance of a code: rounding of a quotient near a half.
_CODE = 1e-3
#: Largest squared error with searched scales relative to that of the rule, in one group and in all. k-quant rounds the
#: zero point afterwards: 1.4 is common in a group, 1.9 the largest of 300 000; 1.01 in all. A doubled scale gives 4.
_GROUP, _ALL = 3.0, 1.25
#: The least scale of HQQ.
_HQQ = 1 / 2e4
#: Groups with no larger weight than this have the scale 1 and the codes of zeros.
_NOTHING = 1e-35


@dataclass(frozen=True)
class Fault:
    """A place where a weight does not follow its rule.

    Attributes:
        row: output feature (of a table: its row).
        message: what is wrong there, without the module.
    """

    row: int
    message: str


@dataclass(frozen=True)
class _Groups:
    """The range of every group, float32 [out or 1, blocks or 1], with 0 in it."""

    lowest: np.ndarray
    highest: np.ndarray
    bare: tuple[np.ndarray, np.ndarray]

    @property
    def extreme(self) -> np.ndarray:
        """The weight of the largest magnitude, with its sign."""
        return np.asarray(np.where(self.highest > -self.lowest, self.highest, self.lowest))

    @property
    def largest(self) -> np.ndarray:
        return np.asarray(np.maximum(self.highest, -self.lowest))


@dataclass(frozen=True)
class _Rule:
    """Scales and zero points, before these are rounded, of all groups."""

    scale: np.ndarray
    zero: np.ndarray | float


def fault(codes: Codes, wanted: np.ndarray, row: str = "output feature") -> Fault | None:
    """The first place where a stored weight is not the quantized form of another; None if there is none.

    Args:
        codes: what is stored.
        wanted: the weight that was quantized [out, in].
        row: what a row of it is called.
    """
    weight = np.asarray(wanted, np.float32)
    grouped = codes.grouped(weight)
    bare = grouped.min(-1), grouped.max(-1)
    groups = _Groups(np.minimum(bare[0], 0), np.maximum(bare[1], 0), bare)
    by_rule, expected = _by_rule(codes, groups)
    good = by_rule | _searched(codes, grouped, groups) if codes.searched and not by_rule.all() else by_rule
    if not good.all():
        at = _first(~good)
        said = _scale_fault(codes, groups, expected, at)
        return Fault(at[0], f"{_place(codes, at, row)}: {said}{_more(~good)}")
    off = _far(codes, weight)
    if off.any():
        at = _first(off)
        position = weight[at] / codes.spread(codes.scale)[_at(codes, at)] + codes.spread(codes.zero)[_at(codes, at)]
        said = f"holds code {codes.codes[at]} where its scale gives {np.clip(position, codes.low, codes.high):.2f}"
        return Fault(at[0], f"{row} {at[0]}, input {at[1]}: {said}{_more(off)}")
    return None


def _by_rule(codes: Codes, groups: _Groups) -> tuple[np.ndarray, _Rule]:
    """The rule that most groups follow, and which groups follow it, bool in the shape of the scales."""
    tolerance = _SCALE + 2 * codes.rounding
    empty = (groups.largest < _NOTHING) & np.isfinite(codes.scale)
    found = []
    for rule in _rules(codes, groups):
        with np.errstate(invalid="ignore"):
            good = np.abs(codes.scale - rule.scale) <= tolerance * np.abs(rule.scale)
        good &= np.abs(codes.zero - np.clip(rule.zero, codes.low, codes.high)) <= 0.5 + _CODE
        good &= codes.zero == np.rint(codes.zero)
        found.append((good | empty, rule))
    return max(found, key=lambda pair: int(pair[0].sum()))


def _rules(codes: Codes, groups: _Groups) -> Iterator[_Rule]:
    """All rules for this storage."""
    levels, middle = codes.high - codes.low, np.rint((codes.low + codes.high) / 2)
    lowest, width = groups.lowest, (groups.highest - groups.lowest).astype(np.float64)
    if codes.searched:
        first, last = groups.bare
        yield _Rule(-2 * groups.extreme / (levels + 1), middle)
        yield _Rule(2 * groups.largest / levels, middle)
        yield _Rule(2 * groups.largest / (levels - 1), middle)
        yield _asymmetric((last - first).astype(np.float64) / levels, codes.low, first)  # RTN: 0 need not be within
    elif codes.low < 0:
        yield _Rule(groups.largest / codes.high, 0.0)
        yield _Rule(4 * groups.largest / (levels + 1), 0.0)
        yield _asymmetric(2 * width / (levels + 1), codes.low // 2, lowest)
    else:
        yield _Rule(2 * groups.largest / levels, middle)
        yield _Rule(2 * groups.largest / (levels // 2), (levels + 1) // 4)
        yield _asymmetric(width / (levels // 2), 0, lowest)
    yield _asymmetric(width / levels, codes.low, lowest)


def _asymmetric(scale: np.ndarray, first: int, lowest: np.ndarray) -> _Rule:
    return _Rule(scale, first - lowest / np.where(scale > 0, scale, 1.0))


def _searched(codes: Codes, grouped: np.ndarray, groups: _Groups) -> np.ndarray:
    """Which groups' errors are close to those of the asymmetric rule or smaller, bool in the shape of the scales."""
    levels = codes.high - codes.low
    width = (groups.highest - groups.lowest)[..., None]
    scale = np.where(width > 0, width / levels, 1.0)
    zero = np.rint(codes.low - groups.lowest[..., None] / scale)
    plain = (np.clip(np.rint(grouped / scale) + zero, codes.low, codes.high) - zero) * scale
    exact = np.square(plain - grouped).sum(-1)
    least = np.where(np.abs(codes.scale - _HQQ) < 1e-9, _HQQ, 0.0)
    usual = grouped.shape[-1] * np.square(np.maximum(width[..., 0] / levels, least)) / 12  # exact may be 0 by chance
    found = np.square(codes.grouped(codes.weight) - grouped).sum(-1)
    good = found <= _GROUP * np.maximum(exact, usual)
    all_in_all = bool(found.sum() <= _ALL * max(exact.sum(), usual.sum()))
    return np.asarray(good if all_in_all or not good.all() else ~good)


def _far(codes: Codes, weight: np.ndarray) -> np.ndarray:
    """Which codes are not the nearest ones, bool [out, in]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        position = weight / codes.spread(codes.scale) + codes.spread(codes.zero)
    nearest = np.clip(np.nan_to_num(position), codes.low, codes.high)
    allowed = 0.5 + _CODE + (codes.rounding + _SCALE) * (codes.high - codes.low)
    return np.asarray((np.abs(codes.codes - nearest) > allowed) & (weight != codes.weight))


def _scale_fault(codes: Codes, groups: _Groups, rule: _Rule, at: tuple[int, int]) -> str:
    scale, wanted, largest = (float(array[at]) for array in (codes.scale, rule.scale, groups.largest))
    if not abs(scale - wanted) <= (_SCALE + 2 * codes.rounding) * abs(wanted):
        return f"its scale is {scale:.6g}; the rule gives {wanted:.6g} for the largest weight {largest:.6g}"
    zero = np.clip(np.broadcast_to(rule.zero, codes.scale.shape)[at], codes.low, codes.high)
    return f"its zero point is {codes.zero[at]:g}; the rule gives {zero:.2f}"


def _place(codes: Codes, at: tuple[int, int], row: str) -> str:
    if codes.scale.size == 1 and len(codes.codes) > 1:
        return "all of it"
    return f"{row} {at[0]}" + (f", block {at[1]}" if codes.block is not None else "")


def _at(codes: Codes, at: tuple[int, int]) -> tuple[int, int]:
    """The place in `Codes.spread` that belongs to a weight."""
    wide = codes.spread(codes.scale)
    return at[0] if len(wide) > 1 else 0, at[1] if wide.shape[1] > 1 else 0


def _first(where: np.ndarray) -> tuple[int, int]:
    row, column = np.argwhere(where)[0]
    return int(row), int(column)


def _more(where: np.ndarray) -> str:
    count = int(where.sum()) - 1
    return f" (and {count} more)" if count else ""
