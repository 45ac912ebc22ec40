"""Images in the example for browsers: pixels are those of transformers' processors, answers those of its pipeline."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.bundle.image import _settings
from tests.examples.web import in_browser, needs_node, node, served, until
from tests.exporter.bundle.test_image import CASES
from tests.runtime.test_images import logits_of
from tests.support.browser import Browser
from tests.support.vit import CLASSES, picture, write_adapter, write_vit

pytestmark = needs_node

SIZES = [(120, 90), (90, 121), (9, 7), (40, 40), (31, 200), (40, 77)]
_SCRIPT = """
import { readFileSync } from "node:fs";
import { Pixels } from "./public/image/pixels.js";
for (const line of readFileSync(0, "utf8").split("\\n").filter((line) => line)) {
  const { image, height, width, rgba } = JSON.parse(line);
  const row = { image: { height, width, data: Buffer.from(rgba, "base64") } };
  const { dims, columns } = new Pixels({ image }).batch([row]);
  const bytes = Buffer.from(columns.pixel_values.buffer);
  console.log(JSON.stringify({ dims, values: bytes.toString("base64") }));
}
"""


_resize = Image.Image.resize


def _across_first(image: Image.Image, size: tuple[int, int], resample: int, **_: Any) -> Image.Image:
    """Pillow 13 resizes some images down first, by a rule of its own; older ones, and the example, always across."""
    return _resize(_resize(image, (size[0], image.height), resample), size, resample)


def test_pixels_are_those_of_transformers(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every filter and step; the last bit may differ where a weight is made of a sine."""
    monkeypatch.setattr(Image.Image, "resize", _across_first)
    (example / "pixels.mjs").write_text(_SCRIPT)
    lines, wanted = [], []
    for name, (kind, settings) in CASES.items():
        processor = getattr(transformers, f"{kind}ImageProcessorPil")(**settings)
        processor.save_pretrained(tmp_path / name)
        how = asdict(_settings(tmp_path / name))
        for seed, size in enumerate(SIZES):
            with monkeypatch.context() as plain:
                plain.setattr(Image.Image, "resize", _resize)
                image = picture(*size, "RGBA" if processor.do_convert_rgb else "RGB", seed)
            rgba = base64.b64encode(image.convert("RGBA").tobytes()).decode()
            lines.append(json.dumps({"image": how, "height": image.height, "width": image.width, "rgba": rgba}))
            wanted.append((name, processor(image, return_tensors="np")["pixel_values"]))
    done = subprocess.run(
        ["node", "pixels.mjs"], cwd=example, input="\n".join(lines), capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    for (name, pixels), line in zip(wanted, done.stdout.splitlines(), strict=True):
        found = json.loads(line)
        assert found["dims"] == list(pixels.shape), name
        values = np.frombuffer(base64.b64decode(found["values"]), np.float32).reshape(pixels.shape)
        np.testing.assert_allclose(values, pixels, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT with two tasks."""
    folder = tmp_path_factory.mktemp("vit")
    base = write_vit(folder / "base")
    for task in CLASSES:
        write_adapter(base, folder / task, task)
    export_bundle(base, [folder / task for task in CLASSES], folder / "bundle", ExportOptions(mode="conditioned"))
    return folder / "bundle"


def test_node_says_where_images_are_read(example: Path, bundle: Path) -> None:
    done = node(example, "node.mjs", str(bundle), "pets", "photo.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: this bundle reads images, which Node has no decoder for: see the page\n"


_READY = "document.querySelectorAll('#tasks input').length > 0 && !document.getElementById('run').disabled"
_ANSWERS = """[...document.querySelectorAll('.answer')].map(
  (card) => [...card.querySelectorAll('.bar, .number')].map((e) => Number(e.title)),
)"""


@in_browser
def test_the_page_answers_as_the_pipeline_does(example: Path, bundle: Path, chromium: Browser) -> None:
    assert node(example, "prepare.mjs", str(bundle)).returncode == 0
    base = bundle.parent / "base"
    says = {task: logits_of(write_adapter(base, bundle.parent / f"{task}-again", task), base) for task in CLASSES}
    with served(example) as address:
        page = chromium.open(address, width=390)
        until(page, _READY)
        assert page.evaluate("document.getElementById('text').offsetParent === null")
        image = picture(120, 90)
        file = io.BytesIO()
        image.save(file, "PNG")
        encoded = base64.b64encode(file.getvalue()).decode()
        page.evaluate(f"""{{
          const bytes = Uint8Array.from(atob("{encoded}"), (c) => c.charCodeAt(0));
          const files = new DataTransfer();
          files.items.add(new File([bytes], "photo.png", {{ type: "image/png" }}));
          document.getElementById('image').files = files.files;
          document.getElementById('run').click();
        }}""")
        until(page, "document.querySelectorAll('.answer').length > 0")
        pets, score = page.evaluate(_ANSWERS)
        logits = np.array(says["pets"](image))
        np.testing.assert_allclose(pets, np.exp(logits) / np.exp(logits).sum(), atol=1e-4)
        np.testing.assert_allclose(score, says["score"](image), atol=1e-4)
        assert page.evaluate("document.getElementById('took').textContent").startswith("2 rows of 32 x 32 pixels")
        assert page.messages == []
        page.close()
