"""Reports of calibrations: what they say, that names cannot break out of them, and how they look in a real browser."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from eptx.calibration.report import report_html, report_text
from eptx.calibration.report.phrases import readable, verdict
from eptx.calibration.report.view import read_view
from tests.calibration.sample_result import calibration
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
    """A JSON value with every leaf and key changed, but for the names of the format's own fields."""
    if isinstance(value, dict):
        return {change(key) if isinstance(key, str) else key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    return change(value)


def _with(**sections: Any) -> dict[str, Any]:
    return calibration() | sections


def test_the_table_for_the_terminal() -> None:
    lines = report_text(calibration()).splitlines()
    assert lines[0].startswith("Chosen: int8, 6 kept. It takes 25.7 MB, 0.28 of fp32's, and 0.53 of its time;")
    table = [line.split() for line in lines]
    assert ["fp32", "92.7", "1.00", "1.00", "0.00", "cola", "0.00", "to", "0.00", "within"] in table
    assert sum(line.startswith("*") for line in lines) == 1
    assert next(line for line in lines if line.startswith("*")).split()[1:4] == ["int8,", "6", "kept"]
    tasks = {row[0] for row in table if (row and "matthews" in row) or "accuracy" in row or "pearson" in row}
    assert tasks == set(calibration()["tasks"])
    assert lines[-6:] == ["  " + name for name in calibration()["trials"][8]["kept"]]
    assert "\u2212" not in "\n".join(lines) and "–" not in "\n".join(lines)


def test_the_verdict() -> None:
    def said(**changes: Any) -> str:
        return verdict(read_view(_with(**changes)))

    trials = calibration()["trials"]
    assert said() == (
        "Chosen: int8, 6 kept. It takes 25.7 MB, 0.28 of fp32's, and 0.53 of its time; "
        "the worst drop is 0.49 points, on stsb, within the budget of 0.5 points."
    )
    assert said(chosen="int4").endswith("past the budget of 0.5 points.")
    assert said(chosen="fp32", trials=[trials[0], *trials[2:4]]) == (
        "Chosen: fp32. No smaller trial keeps every task within its budget. "
        "The closest, int8, loses 0.74 points on mrpc, where 0.5 would be within the budget."
    )
    assert said(chosen="fp32", trials=trials[:1]) == "Chosen: fp32. Nothing else was tried."
    slower = calibration()["settings"] | {"goal": "latency"}
    assert said(chosen="fp32", trials=trials[:2], settings=slower) == "Chosen: fp32. Nothing that was tried is faster."
    assert said(chosen=None, trials=[]).startswith("No setting was tried")
    better = copy.deepcopy(trials[2])
    for drop in better["drops"]:
        drop["points"] = -0.25
    assert "; no task loses anything, " in said(chosen="int8", trials=[trials[0], better | {"within": True}])


def test_the_worst_task_is_the_one_furthest_past_its_own_budget() -> None:
    view = read_view(calibration(budgets={"cola": 5.0, "mnli": 0.1}))
    for trial in view.trials[1:]:
        assert trial.worst is not None
        assert trial.worst.over == max(drop.over for drop in trial.drops)
    (int4,) = [trial for trial in view.trials if trial.name == "int4"]
    assert int4.worst is not None and int4.worst.budget is not None
    assert int4.worst.over == pytest.approx((int4.worst.points or 0) - int4.worst.budget)
    assert view.budget is None


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
    first = report_html(calibration())
    assert first == report_html(copy.deepcopy(calibration()))
    page = _Page(first)
    assert not {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object", "form"}
    assert re.findall(r"""(?:https?:)?//|url\(|@import""", first) == []
    headers = [names for tag, names in page.tags if tag == "th"]
    assert headers and all("scope" in names for names in headers)
    pictures = [names for tag, names in page.tags if tag == "svg"]
    assert len(pictures) > 9 and all("aria-label" in names or "aria-hidden" in names for names in pictures)


def test_names_cannot_break_out() -> None:
    """Every string of the results, also of those that are keys, with markup at its end."""
    fields = set(re.findall(r'"(\w+)"', Path(__file__).with_name("found.py").read_text(encoding="utf-8")))
    fields -= {*calibration()["tasks"], "fp32", "accuracy", "matthews", "pearson", "bert", "ept", "conditioned"}
    plain = calibration()
    hostile = _mapped(plain, lambda v: v + _HOSTILE if isinstance(v, str) and v not in fields else v)
    assert hostile["tasks"][0] == "cola" + _HOSTILE and hostile["sensitivity"]["damage"].keys() == set(hostile["tasks"])
    page = _Page(report_html(hostile))
    known = dict.fromkeys(_Page(report_html(plain)).tags)
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in known}
    assert {name for _, names in page.tags for name in names} <= {name for _, names in known for name in names} | {
        "title"
    }
    assert "cola" + _HOSTILE in "".join(page.text)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_numbers_that_are_none_are_dashes(value: float | None) -> None:
    broken = _mapped(calibration(), lambda v: value if isinstance(v, float) else v)
    for said in (report_html(broken), report_text(broken)):
        words = set(re.findall(r"[a-z]+", re.sub(r"<head>.*?</head>", "", said, flags=re.DOTALL).lower()))
        assert not words & {"nan", "inf", "infinity", "none", "null"}
    assert "could not be measured" in report_text(broken)


def test_what_is_absent_is_left_out() -> None:
    whole = calibration()
    titles = re.findall(r"<h2>(.*?)</h2>", report_html(whole))
    assert len(titles) == 7
    for name in whole:
        for part in (whole | {name: None}, {key: value for key, value in whole.items() if key != name}):
            _Page(report_html(part))
            report_text(part)
    for name, title in (("sensitivity", "Sensitivity"), ("experts", "Experts"), ("routes", "Routes")):
        left = re.findall(r"<h2>(.*?)</h2>", report_html(whole | {name: None}))
        assert [t for t in titles if t not in left] == [t for t in titles if t.startswith(title)]
    _Page(report_html({}))


def test_the_heat_map_shows_every_number_and_shades_by_halves() -> None:
    groups = [{"name": f"layer.{n}.dense"} for n in range(5)]
    found = {"scheme": "int8", "groups": groups, "damage": {"a": [8.0, 4.01, 4.0, 0.004, 0.0]}}
    page = report_html(_with(sensitivity=found, chosen=None))
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


def test_routes_say_what_freezing_loses() -> None:
    whole = calibration(("cola",))
    (found,) = whole["routes"]["tasks"].values()
    (call,) = found["calls"]
    best = call["loss"].index(min(call["loss"]))
    text = " ".join("".join(_Page(report_html(whole)).text).split())
    assert f"cola{best} ✓{call['loss'][best]:.2f}" in text.replace("\n", "")
    assert "0.9123" in text and "0.9087" in text
    call["chosen"] = 3
    found |= {"given": True, "chosen_loss": 12.34}
    given = report_html(whole)
    assert "3, given" in given and "12.3" in given and " ± 0.02" not in given


def test_routes_of_several_calls() -> None:
    whole = calibration(("cola",))
    (found,) = whole["routes"]["tasks"].values()
    (call,) = found["calls"]
    best = call["chosen"]
    found["calls"] = [call, {**call, "chosen": 1, "weights": [0.11, 0.25, 0.5]}]
    text = " ".join("".join(_Page(report_html(whole)).text).split())
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


def _pages() -> dict[str, dict[str, Any]]:
    long = "a_task_whose_name_is_" + "very" * 30
    return {
        "usual": calibration(),
        "large": calibration(layers=35, budgets={"cola": 2.0, "rte": 0.25}),
        "long names": calibration((long, "x" * 150, "mnli")),
        "one task without labels": calibration(("cola",), labelled=False),
        "nothing tried": _with(trials=[], chosen=None, sensitivity=None, experts=None),
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
    file.write_text(report_html(calibration()), encoding="utf-8")
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
