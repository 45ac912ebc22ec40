"""libeptx gives the embeddings of a bundle, which are sentence-transformers'."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import eptx
from tests.runtime.cpp.library import Session, load
from tests.support.sentences import TEXTS, encoded, write_embedder


def test_as_sentence_transformers(tmp_path: Path) -> None:
    load()
    folder, bundle = write_embedder(tmp_path)
    arrays = eptx.Session(bundle, provider="cpu").check(TEXTS, "base")
    inputs = {name: array for name, array in arrays.items() if name != "task_id"}
    outputs, tasks = Session(bundle).run(inputs, ["base", "own", "base", "base", "base"])
    assert tasks == ["base", "own", "base", "base", "base"]
    wanted = encoded(folder, TEXTS)
    np.testing.assert_allclose(outputs["embedding"][[0, 2, 3, 4]], wanted[[0, 2, 3, 4]], atol=1e-5)
    assert np.abs(outputs["embedding"][1] - wanted[1]).max() > 1e-3
