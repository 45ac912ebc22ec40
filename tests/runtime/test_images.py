"""Images become the pixels that transformers' own image processors make, and answers those of its pipeline."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import tritonclient.http as triton
from peft import LoraConfig, get_peft_model
from PIL import Image, PngImagePlugin

from eptx import Session
from eptx.calibration import export_bundle
from eptx.errors import RequestError, UsageError
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from eptx.exporter.validation.contents.images import compare_images
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.run import validate_bundle
from tests.malformed.scene import Cli
from tests.runtime.serving.servers import serving
from tests.support.absent import without
from tests.support.vit import CLASSES, SIDE, picture, write_adapter, write_vit

SIZES = [(120, 90), (33, 100), (9, 7), (SIDE, SIDE), (31, 64)]


@dataclass(frozen=True)
class Made:
    """A bundle with its base and adapters, and transformers' pipeline for each task: a picture to its logits."""

    folder: Path
    session: Session
    says: dict[str, Callable[[Any], list[float]]]


def logits_of(model: Any, base: Path) -> Callable[[Any], list[float]]:
    processor = transformers.AutoImageProcessor.from_pretrained(base, backend="pil")
    pipeline = transformers.pipeline("image-classification", model, image_processor=processor)
    names = list(model.config.id2label.values())

    def ask(image: Any) -> list[float]:
        found = {each["label"]: each["score"] for each in pipeline(image, function_to_apply="none", top_k=len(names))}
        return [found[name] for name in names]

    return ask


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("vit")
    base = write_vit(folder / "base")
    says = {task: logits_of(write_adapter(base, folder / task, task), base) for task in CLASSES}
    export_bundle(base, [folder / task for task in CLASSES], folder / "bundle", ExportOptions(mode="conditioned"))
    return Made(folder, Session(folder / "bundle"), says)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capfd)


def saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


FILES = {
    "a photo": saved(picture(120, 90), "JPEG"),
    **{f"turned {n}": saved(picture(50, 80, seed=n), "JPEG", exif=turned(n)) for n in (2, 3, 5, 6, 8)},
    "png, turned": saved(picture(50, 80), "PNG", exif=turned(6)),
    "gray": saved(picture(60, 60, "L"), "PNG"),
    "black and white": saved(picture(60, 60, "1"), "PNG"),
    "a palette": saved(picture(60, 60).quantize(17), "GIF"),
    "transparent": saved(picture(60, 60, "RGBA"), "PNG"),
    "transparent gray": saved(picture(60, 60, "LA"), "PNG"),
    "print": saved(picture(60, 60, "CMYK"), "JPEG"),
    "webp": saved(picture(60, 40), "WEBP", lossless=True),
    "tiff": saved(picture(60, 40), "TIFF"),
    "two frames": saved(picture(40, 40), "GIF", save_all=True, append_images=[picture(40, 40, seed=5)]),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_what_the_pipeline_reads(made: Made, name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(FILES[name])
    found = made.session.run(path, task="pets").logits[0]
    wanted = made.says["pets"](Image.open(io.BytesIO(FILES[name])))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_batch_of_every_kind(made: Made, tmp_path: Path) -> None:
    pictures = [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]
    pictures[0].save(tmp_path / "a.png")
    array = np.asarray(pictures[3])
    batch = [
        tmp_path / "a.png",
        saved(pictures[1], "PNG"),
        pictures[2],
        array,
        np.moveaxis(np.asarray(pictures[4]), 2, 0),
    ]
    tasks = ["pets", "score", "pets", "score", "pets"]
    outputs = made.session.run(batch, task=tasks)
    for image, task, own in zip(pictures, tasks, outputs.logits, strict=True):
        np.testing.assert_allclose(own, made.says[task](image), rtol=1e-4, atol=1e-4)
    assert outputs.labels[0] in CLASSES["pets"] and isinstance(outputs.labels[1], float)
    stacked = made.session.run(np.stack([array, array]), task="score").logits
    np.testing.assert_array_equal(stacked[0], stacked[1])
    np.testing.assert_allclose(stacked[0], outputs.logits[3], rtol=1e-5)
    gray = made.session.run(np.asarray(pictures[0].convert("L")), task="pets").logits[0]
    np.testing.assert_allclose(gray, made.says["pets"](pictures[0].convert("L")), rtol=1e-4, atol=1e-4)


def test_the_python_of_the_model_card(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(120, 90).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (made.folder / "bundle" / "README.md").read_text(), re.DOTALL)
    values: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(made.folder / "bundle")), values)
    wanted = made.says["pets"](Image.open("photo.jpg"))
    np.testing.assert_allclose(values["outputs"].logits[0], wanted, rtol=1e-4, atol=1e-4)


def test_sixteen_bits_are_not_cut(made: Made) -> None:
    """Pillow makes 255 of every value above it; the upper byte is what it takes of images in color."""
    eight = np.asarray(picture(60, 60, "L"))
    sixteen = saved(Image.fromarray(eight.astype(np.uint16) * 256 + 37), "PNG")
    assert Image.open(io.BytesIO(sixteen)).mode.startswith("I;16")
    found, wanted = (made.session.run(image, task="pets")["logits"] for image in (sixteen, eight))
    np.testing.assert_array_equal(found, wanted)


def _bomb() -> bytes:
    """A file of some kilobytes that says it has 40000 x 40000 pixels."""
    data = bytearray(saved(Image.new("1", (8, 8)), "PNG"))
    data[16:24] = (40000).to_bytes(4, "big") * 2
    data[29:33] = PngImagePlugin._crc32(bytes(data[12:29])).to_bytes(4, "big")  # type: ignore[attr-defined]
    return bytes(data)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"", "image 0 is no image of a format that eptx reads: "),
        (b"some text", "image 0 is no image of a format that eptx reads: "),
        (saved(picture(9, 9), "EPS"), "image 0 is no image of a format that eptx reads: "),
        (saved(picture(90, 90), "JPEG")[:400], "image 0 cannot be read: "),
        (saved(picture(90, 90), "PNG")[:-300], "image 0 cannot be read: "),
        (_bomb(), "image 0 is too large: "),
        (picture(9, 9, "L").convert("F"), "image 0 has values of 32 bits (mode F)"),
        (np.zeros((4, 4, 3), np.float32), "image 0 is an array of float32; an image is uint8, 0 to 255"),
        (np.zeros((3, 4, 3), np.uint8), "image 0 is an array [3, 4, 3]: which axis holds its channels?"),
        (np.zeros((5, 5, 2), np.uint8), "image 0 is an array [5, 5, 2]: its channels are 1, 3 or 4"),
        (np.zeros((0, 4), np.uint8), "image 0 is an array [0, 4]: "),
        (7, "image 0 is a int; give a path"),
        ([], "the batch of images is empty"),
        ([FILES["a photo"], "absent.png"], "absent.png: cannot be read: No such file or directory"),
    ],
)
def test_what_is_no_image(made: Made, image: Any, said: str) -> None:
    with pytest.raises(RequestError) as raised:
        made.session.run(image, task="pets")
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


def test_images_that_are_too_large_are_refused_before_they_are_read(made: Made) -> None:
    with pytest.raises(RequestError, match="image 0 is too large: eptx reads images of at most 100000000 pixels"):
        made.session.run(_bomb(), task="pets")
    with pytest.raises(RequestError, match="10001 x 10000; eptx reads images of at most 100000000"):
        made.session.run(np.broadcast_to(np.uint8(0), (10000, 10001)), task="pets")


def test_threads_share_a_reader(made: Made) -> None:
    wanted = made.session.run(FILES["a photo"], task="pets")["logits"]
    found: list[Any] = []

    def ask() -> None:
        found.append(made.session.run([FILES["a photo"]] * 3, task="pets")["logits"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for each in found:
        np.testing.assert_allclose(each, np.repeat(wanted, 3, axis=0), rtol=1e-5)


def test_the_command(made: Made, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "n\\new photo.png"  # a path has no escapes
    path.write_bytes(FILES["gray"])
    wanted = made.says["pets"](str(path))
    (row,) = json.loads(cli("run", made.session.bundle.path, "--task", "pets", path, "--json").out)
    assert (row["image"], row["label"]) == (str(path), CLASSES["pets"][int(np.argmax(wanted))])
    np.testing.assert_allclose(row["logits"], wanted, rtol=1e-4, atol=1e-4)
    assert [each["label"] for each in row["scores"]] == CLASSES["pets"]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"image": path.name, "task": task}) + "\n" for task in CLASSES))
    lines = cli("run", made.session.bundle.path, "--input", rows).out.splitlines()
    assert [line.split()[0] for line in lines] == list(CLASSES)
    value = made.says["score"](str(path))[0]
    assert float(lines[1].split()[1]) == pytest.approx(value, abs=2e-4)
    refused = cli("run", made.session.bundle.path, "--task", "pets", "absent.png")
    assert (refused.code, refused.out) == (3, "")
    assert refused.err == "error: absent.png: cannot be read: No such file or directory\n"


def test_the_server(made: Made, tmp_path: Path) -> None:
    """The bytes of files as the protocol has them: in binary, and in JSON as base64."""
    files = [FILES["a photo"], FILES["turned 6"]]
    wanted = made.session.run(files, task="pets")
    with serving(tmp_path, made.session.bundle.path) as server:
        client = triton.InferenceServerClient(server.url)
        image = triton.InferInput("image", [2], "BYTES").set_data_from_numpy(np.array(files, object), binary_data=True)
        answer = client.infer("bundle", [image], parameters={"task": "pets"})
        np.testing.assert_allclose(answer.as_numpy("logits"), wanted["logits"], rtol=1e-5)
        assert [label.decode() for label in answer.as_numpy("label")] == wanted.labels
        client.close()
        data = [base64.b64encode(file).decode() for file in files]
        tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "data": data}
        status, answer = server.infer({"inputs": [tensor], "parameters": {"task": "pets"}}, "bundle")
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        assert (status, outputs["label"]) == (200, wanted.labels)
        np.testing.assert_allclose(outputs["logits"], wanted["logits"].ravel(), rtol=1e-5)
        status, _, body = server.call("GET", "/v2/models/bundle")
        assert json.loads(body)["parameters"]["also_takes"] == ["image", "task"]
        for wrong, said in (
            ({**tensor, "data": ["=", "="]}, "is not base64"),
            ({**tensor, "data": [data[0], base64.b64encode(b"text").decode()]}, "image 1 is no image of a format"),
            ({**tensor, "datatype": "INT64", "data": [1, 2]}, "input image must be of datatype BYTES"),
        ):
            status, answer = server.infer({"inputs": [wrong], "parameters": {"task": "pets"}}, "bundle")
            assert (status, said in answer["error"]) == (400, True), answer


def test_validation_compares_pixels(made: Made, tmp_path: Path) -> None:
    report = validate_bundle(made.session.bundle.path, ValidateOptions(providers=["cpu"]))
    assert report.passed
    names = [check.name for check in report.checks if check.how == "compared" and check.wrong is None]
    assert {"eptx.json: image", "preprocessor_config.json"} <= {*names}


@pytest.mark.parametrize("wrong", ["filter", "scale", "flip", "crop"])
def test_validation_finds_other_pixels(made: Made, wrong: str) -> None:
    image = made.session.manifest.image
    assert image is not None and image.resize is not None
    other = {
        "filter": replace(image, resize=replace(image.resize, filter="bicubic")),
        "scale": replace(image, scale=1 / 256),
        "flip": replace(image, flip=True),
        "crop": replace(image, resize=replace(image.resize, height=36, width=36), crop=(SIDE, SIDE)),
    }[wrong]
    bundle = replace(made.session.bundle, manifest=replace(made.session.manifest, image=other))
    (check,) = [check for check in compare_images(bundle, made.folder / "base", []) if check.wrong]
    assert check.name == "eptx.json: image" and str(check.wrong).startswith(
        "an image of 500 x 375 (RGB) has pixels that"
    )


def test_the_processor_that_was_trained_with(made: Made, tmp_path: Path) -> None:
    """A trainer saves it beside the adapter, and it counts before the base's; two that differ are refused."""
    base, adapter = made.folder / "base", tmp_path / "pets"
    says = write_adapter(base, adapter, "pets")
    own = transformers.ViTImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, resample=3, image_mean=[0.1, 0.2, 0.3]
    )
    own.save_pretrained(adapter)
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="static"))
    found = Session(bundle).run(picture(90, 70)).logits[0]
    np.testing.assert_allclose(found, logits_of(says, adapter)(picture(90, 70)), rtol=1e-4, atol=1e-4)
    assert abs(found - made.session.run(picture(90, 70), task="pets").logits[0]).max() > 1e-2
    report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))
    assert report.passed, report.reason
    other = tmp_path / "score"
    write_adapter(base, other, "score")
    transformers.ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(other)
    with pytest.raises(UsageError, match="were saved with different image processors"):
        export_bundle(base, [adapter, other], tmp_path / "both", ExportOptions(mode="conditioned"))


def test_without_pillow(made: Made, tmp_path: Path) -> None:
    """One line names the extra, and arrays need none."""
    code = "from eptx.cli import main\nmain()"
    (tmp_path / "a.png").write_bytes(FILES["gray"])
    command = [sys.executable, "-c", without(["PIL"], code), "run", made.session.bundle.path, "--task", "pets"]
    done = subprocess.run([*command, tmp_path / "a.png"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (5, "error: images need Pillow; pip install 'eptx[images]'\n")


def test_a_bundle_that_does_not_say_how(made: Made) -> None:
    bundle = made.session.bundle
    silent = Session(replace(bundle, manifest=replace(bundle.manifest, image=None)))
    with pytest.raises(RequestError, match="does not say how an image becomes pixel_values"):
        silent.run(picture(9, 9), task="pets")
    pixels = made.session.images(picture(90, 70))
    assert pixels["pixel_values"].shape == (1, 3, SIDE, SIDE) and pixels["pixel_values"].dtype == np.float32
    np.testing.assert_array_equal(
        silent.run(pixels, task="pets")["logits"], made.session.run(picture(90, 70), task="pets")["logits"]
    )


def test_features_of_images(made: Made, tmp_path: Path, cli: Cli) -> None:
    """More images than a run takes, and the base's own vectors."""
    with quiet(), torch.no_grad():
        bare = transformers.ViTModel.from_pretrained(made.folder / "base", add_pooling_layer=False).eval()
        pictures = [picture(40, 30, seed=seed) for seed in range(3)] * 400
        processor = transformers.AutoImageProcessor.from_pretrained(made.folder / "base", backend="pil")
        wanted = bare(**processor(pictures[:3], return_tensors="pt")).last_hidden_state[:, 0].numpy()
        get_peft_model(bare, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "plain")
        bundle = export_bundle(
            made.folder / "base", [tmp_path / "plain"], tmp_path / "features", ExportOptions(mode="conditioned")
        )
    found = Session(bundle).embed(pictures, pooling="cls", normalize=False)
    np.testing.assert_allclose(found, np.tile(wanted, (400, 1)), rtol=1e-3, atol=1e-4)
    pictures[0].save(tmp_path / "a.png")
    said = cli("run", bundle.path, "--task", "base", tmp_path / "a.png").out
    first = " ".join(f"{value:.4f}" for value in wanted[0][:4])
    assert said.split(maxsplit=1)[1] == f"last_hidden_state [17, 16] {first} ...  {tmp_path / 'a.png'}\n"
