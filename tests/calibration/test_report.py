"""Reports of calibrations: what they say, that names cannot break out of them, and how they look in a real browser."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eptx.calibration.quantize.layers import Layer
from eptx.calibration.report import report_html, report_text
from eptx.calibration.report.phrases import few_rows, readable, verdict
from eptx.calibration.result import CalibrationResult, Sensitivity
from eptx.calibration.search.trial import past
from eptx.exporter.adapters.routing.route import Route
from tests.calibration.sample_result import sample_result
from tests.support.browser import CHROMIUM, Browser

_VOID = {"meta", "link", "br", "wbr"}
_HOSTILE = "\"'></td></svg><script>alert(1)</script><img src=x onerror=alert(1)>&lt;b&gt;"


class _Page(HTMLParser):
    """Reads a page, and fails where an element is not closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, frozenset[str]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, frozenset(name for name, _ in attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _mapped(value: Any, change: Any) -> Any:
    """A result with every string and number in it changed, but for the names of the classes' own fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _mapped(getattr(value, field.name), change) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, dict):
        return {change(key) if isinstance(key, str) else key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, change) for item in value)
    return value if isinstance(value, np.ndarray) else change(value)


def _chosen(result: CalibrationResult, name: str, **changes: Any) -> CalibrationResult:
    """The result with another trial chosen."""
    changed = dataclasses.replace(result, **changes)
    return dataclasses.replace(changed, chosen=next(trial for trial in changed.trials if trial.name == name))


def test_the_table_for_the_terminal() -> None:
    result = sample_result()
    lines = report_text(result).splitlines()
    assert lines[0].startswith("Chosen: int8, 6 kept. It takes 25.7 MB, 0.28 of fp32's, and 0.53 of its time;")
    table = [line.split() for line in lines]
    assert ["fp32", "92.7", "1.00", "1.00", "0.00", "cola", "-", "within"] in table
    assert sum(line.startswith("*") for line in lines) == 1
    assert next(line for line in lines if line.startswith("*")).split()[1:4] == ["int8,", "6", "kept"]
    tasks = {row[0] for row in table if (row and "matthews" in row) or "accuracy" in row or "pearson" in row}
    assert tasks == set(result.tasks)
    assert lines[-6:] == ["  " + name for name in result.trials[8].kept]
    assert "\u2212" not in "\n".join(lines) and "–" not in "\n".join(lines)


def test_the_verdict() -> None:
    result = sample_result()
    trials = list(result.trials)
    assert verdict(result) == (
        "Chosen: int8, 6 kept. It takes 25.7 MB, 0.28 of fp32's, and 0.53 of its time; "
        "the worst drop is 0.49 points, on stsb, within the budget of 0.5 points. "
        "These rows do not settle it: the 95 % intervals of 7 tasks reach past the budget, to 1.07 points on stsb."
    )
    assert verdict(_chosen(result, "int4")).endswith("past the budget of 0.5 points.")
    assert verdict(_chosen(result, "fp32", trials=[trials[0], *trials[2:4]])) == (
        "Chosen: fp32. No smaller trial keeps every task within its budget. "
        "The closest, int8, drops by 0.74 points on mrpc, where 0.5 would be within the budget."
    )
    assert verdict(_chosen(result, "fp32", trials=trials[:1])) == "Chosen: fp32. Nothing else was tried."
    slower = dataclasses.replace(result.settings, goal="latency")
    said = verdict(_chosen(result, "fp32", trials=trials[:2], settings=slower))
    assert said == "Chosen: fp32. Nothing that was tried is faster."
    gained = tuple(dataclasses.replace(drop, points=-0.25) for drop in trials[2].drops)
    better = dataclasses.replace(trials[2], drops=gained)
    assert "; no task drops, " in verdict(_chosen(result, "int8", trials=[trials[0], better]))


def _with_drops(result: CalibrationResult, drops: dict[str, tuple[float, float]], rows: int = 277) -> CalibrationResult:
    """The result with int8 chosen, and of it other points and high ends for each task."""
    (trial,) = [trial for trial in result.trials if trial.name == "int8"]
    changed = [
        dataclasses.replace(own, rows=rows, points=p, high=h)
        for own, (p, h) in zip(trial.drops, drops.values(), strict=True)
    ]
    other = dataclasses.replace(trial, drops=tuple(changed))
    trials = [other if own is trial else own for own in result.trials]
    return _chosen(result, "int8", trials=trials)


def test_the_verdict_says_what_the_table_says() -> None:
    """A task with a small budget may be the nearest to it without a drop, while another one drops."""
    unequal = sample_result(("cola", "rte"), budgets={"cola": 5.0, "rte": 0.1})
    said = verdict(_with_drops(unequal, {"cola": (3.0, 4.0), "rte": (0.0, 0.05)}))
    assert "no task drops" not in said and said.endswith(
        "the drop nearest its budget is 0 points, on rte, within the budget of 0.1 points."
    )
    same = sample_result(("cola", "rte"))
    assert "; no task drops, within" in verdict(_with_drops(same, {"cola": (0.0, 0.1), "rte": (-1.0, 0.1)}))
    assert "is 0.504 points, on cola, past" in verdict(_with_drops(same, {"cola": (0.504, 1.0), "rte": (0.0, 0.1)}))
    assert "is 0.004 points, on cola, within" in verdict(_with_drops(same, {"cola": (0.004, 0.1), "rte": (0.0, 0.1)}))
    one = verdict(_with_drops(same, {"cola": (0.0, 32.44), "rte": (0.0, 0.1)}))
    assert one.endswith(
        "These rows do not settle it: the 95 % interval of cola reaches past the budget, to 32.44 points."
    )


def test_a_bundle_beside_the_search_may_be_better_than_what_it_found() -> None:
    result = sample_result()
    beside = dataclasses.replace(result.chosen, name="this bundle", bytes_ratio=0.1, bytes=10)
    trials = [*result.trials, beside]
    assert verdict(dataclasses.replace(result, trials=trials)).endswith(
        " This bundle is smaller, and within the budget too."
    )
    assert verdict(_chosen(result, "fp32", trials=[result.trials[0], beside])) == (
        "Chosen: fp32. Of what was searched, nothing smaller keeps every task within its budget. "
        "This bundle is smaller, and within the budget too."
    )


def test_few_rows_are_said() -> None:
    metrics = {"cola": "matthews", "rte": "accuracy", "stsb": "pearson"}
    rows = dict.fromkeys(metrics, 8)
    assert few_rows(dict.fromkeys(metrics, 0.5), metrics, rows) == (
        "Few rows for the budget of cola, rte: of cola's 8 rows one is about 12.5 points, and 0.5 may drop; "
        "200 rows a task (--rows) are the least for it."
    )
    assert few_rows(dict.fromkeys(metrics, 12.5), metrics, rows) is None
    assert few_rows({"stsb": 0.5}, metrics, rows) is None  # no row of a correlation has a weight
    zero = few_rows({"rte": 0.0}, {"rte": "accuracy"}, {"rte": 1})
    assert zero == "Few rows for the budget of every task: of rte's 1 row one is about 100 points, and 0 may drop."
    result = sample_result()
    short = dataclasses.replace(
        result, settings=dataclasses.replace(result.settings, rows=dict.fromkeys(result.tasks, 8))
    )
    for said, warned in ((result, False), (short, True)):
        assert ("Few rows" in report_text(said), "Few rows" in report_html(said)) == (warned, warned)


def test_the_worst_task_is_the_one_furthest_past_its_own_budget() -> None:
    result = sample_result(budgets={"cola": 5.0, "mnli": 0.1})
    for trial in result.trials[1:]:
        worst = trial.worst(result.budget)
        assert past(worst, result.budget) == max(drop.points - result.budget[drop.task] for drop in trial.drops)
    (int4,) = [trial for trial in result.trials if trial.name == "int4"]
    worst = int4.worst(result.budget)
    assert past(worst, result.budget) == pytest.approx(worst.points - result.budget[worst.task])
    assert result.common_budget is None


def test_names_lose_what_they_share_and_stay_different() -> None:
    nodes = [f"/encoder.layer.{n}.attention.self.{part}/MatMul" for n in range(6) for part in ("query", "key")]
    short, prefix = readable([*nodes, "classifier"])
    assert prefix == "encoder."
    assert short[nodes[3]] == "layer.1.attention.self.key" and short["classifier"] == "classifier"
    assert readable(["a.b", "b", "a.c", "a.d"]) == ({name: name for name in ("a.b", "b", "a.c", "a.d")}, "")
    assert readable(["one"]) == ({"one": "one"}, "") and readable([]) == ({}, "")
    genai = [f"/model/layers.{n}/attn/qkv_proj/MatMul_Q4" for n in range(3)]
    assert list(readable(genai)[0].values()) == [f"layers.{n}/attn/qkv_proj" for n in range(3)]


def test_a_page_is_the_same_bytes_and_whole() -> None:
    first = report_html(sample_result())
    assert first == report_html(copy.deepcopy(sample_result()))
    page = _Page(first)
    assert not {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object", "form"}
    assert re.findall(r"""(?:https?:)?//|url\(|@import""", first) == []
    headers = [names for tag, names in page.tags if tag == "th"]
    assert headers and all("scope" in names for names in headers)
    pictures = [names for tag, names in page.tags if tag == "svg"]
    assert len(pictures) > 9 and all("aria-label" in names or "aria-hidden" in names for names in pictures)


def test_names_cannot_break_out() -> None:
    """Every string of the results, also of those that are keys, with markup at its end."""
    fields = {"size", "divergence", "rows"}
    plain = sample_result()
    hostile = _mapped(plain, lambda v: v + _HOSTILE if isinstance(v, str) and v not in fields else v)
    assert hostile.tasks[0] == "cola" + _HOSTILE and set(hostile.sensitivity.divergence) == set(hostile.tasks)
    page = _Page(report_html(hostile))
    known = dict.fromkeys(_Page(report_html(plain)).tags)
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in known}
    assert {name for _, names in page.tags for name in names} <= {name for _, names in known for name in names} | {
        "title"
    }
    assert "cola" + _HOSTILE in "".join(page.text)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_dashes(value: float) -> None:
    plain = sample_result()
    broken = _mapped(plain, lambda v: value if isinstance(v, float) else v)
    broken = dataclasses.replace(broken, settings=plain.settings, chosen=broken.trials[8])
    for said in (report_html(broken), report_text(broken)):
        words = set(re.findall(r"[a-z]+", re.sub(r"<head>.*?</head>", "", said, flags=re.DOTALL).lower()))
        assert not words & {"nan", "inf", "infinity", "none", "null"}
    assert "could not be measured" in report_text(broken)


def test_what_is_absent_is_left_out() -> None:
    whole = sample_result()
    titles = re.findall(r"<h2>(.*?)</h2>", report_html(whole))
    assert len(titles) == 7
    settings = dataclasses.replace(whole.settings, threads=None, max_drop={}, data=[])
    for part in (_chosen(whole, "fp32", trials=whole.trials[:1]), dataclasses.replace(whole, settings=settings)):
        _Page(report_html(part))
        report_text(part)
    changes: dict[str, Any] = {"sensitivity": "Sensitivity", "experts": "Experts", "routes": "Routes"}
    for name, title in changes.items():
        without: dict[str, Any] = {name: None}
        left = re.findall(r"<h2>(.*?)</h2>", report_html(dataclasses.replace(whole, **without)))
        assert [t for t in titles if t not in left] == [t for t in titles if t.startswith(title)]


def test_the_heat_map_shows_every_number_and_shades_by_halves() -> None:
    layers = [Layer(f"layer.{n}.dense") for n in range(5)]
    found = Sensitivity("int8", layers, {"a": [8.0, 4.01, 4.0, 0.004, 0.0]})
    page = report_html(_chosen(sample_result(), "int8", sensitivity=found))
    cells = re.findall(
        r'<td(?: class="(s\d)")?>([^<]*)</td>', page[page.index("The most sensitive") : page.index("Experts")]
    )
    assert cells == [("s7", "8.00"), ("s7", "4.01"), ("s6", "4.00"), ("", "&lt;0.01"), ("", "0")]
    worst = re.findall(r"<li><b>(.*?)</b>: (.*?) on a</li>", page)
    assert worst == [
        ("layer.0.dense", "8.00"),
        ("layer.1.dense", "4.01"),
        ("layer.2.dense", "4.00"),
        ("layer.3.dense", "&lt;0.01"),
    ]


def _with_routes(result: CalibrationResult, **changes: Any) -> CalibrationResult:
    """The result with its only task's routes changed."""
    assert result.routes is not None
    tasks = {task: dataclasses.replace(found, **changes) for task, found in result.routes.tasks.items()}
    return dataclasses.replace(result, routes=dataclasses.replace(result.routes, tasks=tasks))


def test_routes_say_how_far_freezing_moves_the_answers() -> None:
    whole = sample_result(("cola",))
    assert whole.routes is not None
    (found,) = whole.routes.tasks.values()
    (call,) = found.calls
    best = call.divergences.index(min(call.divergences))
    text = " ".join("".join(_Page(report_html(whole)).text).split())
    assert f"cola{best} ✓{call.divergences[best]:.2f}" in text.replace("\n", "")
    assert "0.9123" in text and "0.9087" in text
    other = dataclasses.replace(call, route=dataclasses.replace(call.route, group=3))
    given = report_html(_with_routes(whole, calls=(other,), given=True, error={"divergence": 12.34}))
    assert "3, given" in given and "12.3" in given and " ± 0.02" not in given


def test_fixed_weights_of_routers_in_every_module() -> None:
    """The table has the means over the modules, and no groups."""
    result = sample_result()
    assert result.routes is not None
    task, found = next(iter(result.routes.tasks.items()))
    calls = tuple(dataclasses.replace(found.calls[0], route=Route(0, own)) for own in ((0.25, 0.75), (0.75, 0.25)))
    tasks = {task: dataclasses.replace(found, calls=calls)}
    routes = dataclasses.replace(result.routes, router=None, groups=1, experts=2, tasks=tasks)
    text = " ".join(_Page(report_html(dataclasses.replace(result, routes=routes))).text)
    assert "Every module has a router" in text and "The share says" not in text
    assert re.search(r"0\.50* ± 0\.250*, 0\.50* ± 0\.250*", text), text[-2000:]


def test_routes_of_several_calls() -> None:
    whole = sample_result(("cola",))
    assert whole.routes is not None
    (call,) = whole.routes.tasks["cola"].calls
    best = call.route.group
    calls = (call, dataclasses.replace(call, route=Route(1, (0.11, 0.25, 0.5))))
    text = " ".join("".join(_Page(report_html(_with_routes(whole, calls=calls))).text).split())
    assert f"call 1: {best} ✓" in text and "call 2: 1 ✓" in text
    assert f"cola{best} / 1" in text and "/ 0.11 ± 0.02" in text


browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

_NARROW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
#: Pairs of numbers in a plot that lie on each other.
_OVERLAPS = """[...document.querySelectorAll('figure svg')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text.number')].map(t => [t.textContent, t.getBoundingClientRect()]);
  return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) =>
    Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1 &&
    Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4).map(([b]) => a + '/' + b)); })"""
#: Texts that stand out from what is behind them by less than 4.5, the least that WCAG's level AA allows.
_FAINT = """(() => {
  const parts = text => { const n = text.match(/[\\d.]+/g).map(Number);
    return [...n.slice(0, 3).map(v => text.startsWith('color(') ? v : v / 255), n[3] ?? 1]; };
  const light = c => c.slice(0, 3).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parts(getComputedStyle(e).backgroundColor); if (c[3] > 0) return c; } return [1, 1, 1, 1]; };
  return [...document.querySelectorAll('body *')].filter(e => e.tagName !== 'title' &&
      [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
    const style = getComputedStyle(e), own = parts(e instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(own), light(behind(e))].sort();
    return [e.textContent.slice(0, 40), ((Math.max(a, b) + .05) / (Math.min(a, b) + .05)).toFixed(2)];
  }).filter(([, ratio]) => ratio < 4.5); })()"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with Browser() as started:
        yield started


def _pages() -> dict[str, CalibrationResult]:
    long = "a_task_whose_name_is_" + "very" * 30
    usual = sample_result()
    return {
        "usual": usual,
        "large": sample_result(blocks=35, budgets={"cola": 2.0, "rte": 0.25}),
        "long names": sample_result((long, "x" * 150, "mnli")),
        "one task without labels": sample_result(("cola",), labelled=False),
        "nothing else tried": _chosen(usual, "fp32", trials=usual.trials[:1], sensitivity=None, experts=None),
    }


@browser
@pytest.mark.parametrize("name", _pages())
def test_a_browser_shows_it_without_complaint(name: str, chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(report_html(_pages()[name]), encoding="utf-8")
    for width, dark in ((360, False), (1200, True)):
        page = chromium.open(file, width=width, dark=dark)
        assert page.requests == [file.as_uri()]
        assert page.messages == []
        assert page.evaluate(_NARROW) == 0
        assert page.evaluate("window.innerWidth") == width
        assert page.evaluate(_OVERLAPS) == []
        assert page.evaluate(_FAINT) == []
        page.close()


@browser
def test_dark_and_light_differ_and_paper_is_white(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(report_html(sample_result()), encoding="utf-8")
    colour = "getComputedStyle(document.body).backgroundColor"
    assert chromium.open(file, width=1200).evaluate(colour) == "rgb(255, 255, 255)"
    dark = chromium.open(file, width=1200, dark=True)
    assert dark.evaluate(colour) == "rgb(18, 22, 29)"
    chromium.call("Emulation.setEmulatedMedia", dark.session, media="print")
    assert dark.evaluate(colour) == "rgb(255, 255, 255)"
    cut_off = "[...document.querySelectorAll('.box')].filter(b => getComputedStyle(b).overflow !== 'visible').length"
    assert dark.evaluate(cut_off) == 0


@browser
def test_these_checks_find_what_they_look_for(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    number = '<text class="number" x="9" y="20">12</text>'
    file.write_text(
        '<!doctype html><meta name="viewport" content="width=device-width"><body><div style="width: 500px">wide</div>'
        '<p style="color: #999">faint</p><img src="missing.png"><script>console.log("said")</script>'
        f"<figure><svg>{number}{number}</svg></figure>",
        encoding="utf-8",
    )
    page = chromium.open(file, width=360)
    assert len(page.requests) == 2 and any("said" in message for message in page.messages)
    assert page.evaluate(_NARROW) > 0
    assert page.evaluate(_OVERLAPS) == ["12/12"]
    assert [text for text, _ in page.evaluate(_FAINT)] == ["faint"]
