"""What the pages say is so: links lead somewhere, and words and Python are those that there are."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not {"build", "dist", "node_modules", "shared"} & set(page.relative_to(ROOT).parts)
    and not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
    and not page.is_relative_to(ROOT / "eptx")  # its links lead to the folders at the root
)
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What a hosting page calls the headings of a page."""
    kept = (
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))
        for heading in HEADING.findall(prose(page))
    )
    return {text.lower().replace(" ", "-") for text in kept}


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The files that a page links to, each with its anchor."""
    for target in LINK.findall(prose(page)):
        if not re.match(r"[a-z]+:", target):
            name, _, anchor = target.partition("#")
            yield (page.parent / name if name else page), anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), target
        if anchor:
            assert anchor in anchors(target), f"{target.name}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths(page: Path) -> None:
    """What a page names between backticks as a file of the repository is one."""
    for name in re.findall(r"`((?:tests|docs|examples|eptx|exporter|runtime|calibration)/[\w./-]+)`", prose(page)):
        assert (ROOT / name).exists(), name


def test_links_are_found() -> None:
    found = {target.resolve() for page in PAGES for target, _ in links(page)}
    assert any(anchor for page in PAGES for _, anchor in links(page))
    for page in PAGES:
        if page.parent.name in ("docs", "adr") or page.parent == ROOT:
            assert page in found or page.name in ("README.md", "CHANGELOG.md"), f"no page links to {page.name}"


#: Words that the glossary has another one for, and spellings that ONNX Runtime, PyTorch and transformers do not use.
RETIRED = r"quantis|tokenis|normalis|\btwins?\b|\btruth\b|\bjudg|\blosses\b|\bloses\b"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    if page.name != "CHANGELOG.md":
        found = re.search(rf".*({RETIRED}).*", page.read_text(encoding="utf-8"), re.IGNORECASE)
        assert found is None, found and found[0]


def test_each_term_of_the_glossary_stands_once() -> None:
    terms = re.findall(r"\*\*([^*]+)\*\*", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))
    assert len(terms) > 40
    assert len(set(terms)) == len(terms)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_that_pages_show(page: Path) -> None:
    """It is Python, and the names that it imports from eptx are there."""
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "eptx":
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)
