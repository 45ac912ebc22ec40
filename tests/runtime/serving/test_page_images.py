"""The form for images on the page of `eptx serve`, in a real browser, against transformers' own pipeline."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from tests.examples.web import in_browser, until
from tests.runtime.serving.servers import Server, serving
from tests.runtime.test_images import logits_of
from tests.support.browser import Browser
from tests.support.vit import CLASSES, picture, write_adapter, write_vit

pytestmark = in_browser

#: A name that a shell would read otherwise.
NAME = "it's $(my) photo.png"


@pytest.fixture(scope="module")
def says(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A bundle, and what transformers' pipeline says of an image for each task."""
    folder = tmp_path_factory.mktemp("vit")
    base = write_vit(folder / "base")
    models = {task: write_adapter(base, folder / task, task) for task in CLASSES}
    export_bundle(base, [folder / task for task in CLASSES], folder / "images", ExportOptions(mode="conditioned"))
    return folder / "images", {task: logits_of(model, base) for task, model in models.items()}


@pytest.fixture(scope="module")
def server(says: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), says[0]) as started:
        yield started


@pytest.mark.parametrize("width", [390, 1280], ids=["phone", "desktop"])
def test_the_form(width: int, says: tuple[Path, dict[str, Any]], server: Server, tmp_path: Path) -> None:
    image, file = picture(120, 90), io.BytesIO()
    image.save(file, "PNG")
    with Browser() as chromium:
        page = chromium.open(f"http://{server.url}/", width=width)
        until(page, "document.querySelector('#models .card') !== null")
        assert page.evaluate("byId('first').offsetParent === null && byId('image').offsetParent !== null")
        page.evaluate(f"""{{
          const bytes = Uint8Array.from(atob("{base64.b64encode(file.getvalue()).decode()}"), (c) => c.charCodeAt(0));
          const files = new DataTransfer();
          files.items.add(new File([bytes], {json.dumps(NAME)}, {{ type: "image/png" }}));
          byId('image').files = files.files;
          byId('send').click();
        }}""")
        until(page, "running === null && byId('answer').textContent + byId('failed').textContent !== ''")
        assert page.evaluate("byId('failed').textContent") == ""
        found = page.evaluate(
            "[...document.querySelectorAll('#answer .card')].map(c => [c.querySelector('h3').innerText, "
            "c.querySelector('.result').innerText, [...c.querySelectorAll('meter')].map(m => m.value)])"
        )
        command = page.evaluate("byId('curl').textContent")
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        assert page.messages == []
    logits = np.array(says[1]["pets"](image))
    likely = np.exp(logits) / np.exp(logits).sum()
    (task, label, scores), (other, value, none) = found
    assert (task, label) == ("pets", CLASSES["pets"][likely.argmax()])
    np.testing.assert_allclose(scores, likely, atol=1e-4)
    assert (other, none) == ("score", [])
    assert float(value) == pytest.approx(float(np.ravel(says[1]["score"](image))[0]), abs=1e-4)
    (tmp_path / NAME).write_bytes(file.getvalue())
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30)
    outputs = {output["name"]: output["data"] for output in json.loads(done.stdout)["outputs"]}
    assert outputs["label"][0] == label
