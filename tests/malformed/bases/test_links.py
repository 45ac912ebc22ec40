"""Links in the folders of a base and an adapter: those to files elsewhere are refused, a hub's cache works."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from eptx.bundle import read_bundle
from tests.malformed.breaks import CONFIG, HEADS, WEIGHTS
from tests.malformed.scene import Cli, Scene, leaves_nothing

_OUTSIDE = "is a link to a file outside the folder; put the file itself there, or remove the link"
#: What an export copies of a base, or reads to make a bundle of.
_OF_BASE = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "preprocessor_config.json",
    "sentence_bert_config.json",
)


def _secret(scene: Scene, path: Path) -> Path:
    """A file of the user's, with what stood at a path, so that nothing else is wrong with it."""
    secret = scene.root / "home" / "secret"
    secret.parent.mkdir(exist_ok=True)
    secret.write_bytes(path.read_bytes() if path.is_file() else b'{"password": "x"}')
    path.unlink(missing_ok=True)
    return secret


@pytest.mark.parametrize("name", _OF_BASE)
@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_of_a_base(scene: Scene, cli: Cli, name: str, relative: bool) -> None:
    path = scene.base / name
    secret = _secret(scene, path)
    path.symlink_to(os.path.relpath(secret, scene.base) if relative else secret)
    with leaves_nothing(scene.out):
        cli.refuses(3, f"base: '{name}' {_OUTSIDE}", *scene.export_args("ept"))


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, HEADS])
def test_of_an_adapter(scene: Scene, cli: Cli, name: str) -> None:
    secret = _secret(scene, scene.ept / name)
    (scene.ept / name).symlink_to(secret)
    with leaves_nothing(scene.out):
        cli.refuses(3, f"ept: '{name}' {_OUTSIDE}", *scene.export_args("ept"))
    cli.refuses(3, f"ept: '{name}' {_OUTSIDE}", "inspect", scene.ept)


def test_beside_an_onnx_decoder(scene: Scene, cli: Cli) -> None:
    """GenAI's files are taken from where the graph is."""
    (scene.root / "genai_config.json").symlink_to("/etc/passwd")
    cli.refuses(3, f"'genai_config.json' {_OUTSIDE}", *scene.export_args("ept", base=False))


def _by_a_folder(scene: Scene) -> str:
    (scene.base / "inside").symlink_to(_secret(scene, scene.base / "vocab.txt").parent)
    return "inside/secret"


def _a_fake_cache(scene: Scene) -> str:
    (scene.root / "blobs").symlink_to(_secret(scene, scene.base / "vocab.txt").parent)
    return "../blobs/secret"


def _twice(scene: Scene) -> str:
    (scene.base / "vocabulary").symlink_to(_secret(scene, scene.base / "vocab.txt"))
    return "vocabulary"


@pytest.mark.parametrize("make", [_by_a_folder, _a_fake_cache, _twice])
def test_a_way_round(scene: Scene, cli: Cli, make: Callable[[Scene], str]) -> None:
    (scene.base / "vocab.txt").symlink_to(make(scene))
    with leaves_nothing(scene.out):
        cli.refuses(3, f"base: 'vocab.txt' {_OUTSIDE}", *scene.export_args("ept"))


@pytest.mark.parametrize("where", ["base", "ept"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: os.mkfifo(path), "vocab.txt: not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "vocab.txt: not a regular file"),
        (lambda path: path.symlink_to("/nothing/here"), "'vocab.txt' is a link to nothing"),
        (lambda path: path.symlink_to("vocab.txt"), "'vocab.txt' is a link to nothing"),
    ],
    ids=["a FIFO", "a device", "dangling", "a circle"],
)
def test_no_file(scene: Scene, cli: Cli, where: str, make: Callable[[Path], None], said: str) -> None:
    """Without a word the bundle would lack them."""
    make(scene.root / where / "vocab.txt")
    with leaves_nothing(scene.out):
        cli.refuses(3, said, *scene.export_args("ept"))


def _cache(folder: Path, root: Path) -> Path:
    """The same files as a hub's cache keeps them."""
    snapshot = root / f"models--a--{folder.name}" / "snapshots" / "0a1b"
    blobs = snapshot.parents[1] / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copyfile(path, blobs / f"{number:040x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def test_a_cache_of_a_hub(scene: Scene, cli: Cli) -> None:
    (scene.base / "generation_config.json").write_text('{"max_length": 7}')
    args = scene.export_args("ept")
    assert cli(*args).code == 0
    wanted = read_bundle(scene.out / "b").manifest.files
    links = {str(folder): str(_cache(folder, scene.root / "hub")) for folder in (scene.base, scene.ept)}
    done = cli(*[links.get(arg, arg) for arg in args])
    assert done.code == 0, done.err
    found = read_bundle(scene.out / "b").manifest.files
    assert found.keys() == wanted.keys()
    for name in ("config.json", "generation_config.json", "model.onnx"):
        assert found[name] == wanted[name]
    # a file of the cache that is itself a link leaves it
    blob = (Path(links[str(scene.base)]) / "generation_config.json").resolve()
    _secret(scene, blob)
    blob.symlink_to(scene.root / "home" / "secret")
    cli.refuses(3, f"'generation_config.json' {_OUTSIDE}", *[links.get(arg, arg) for arg in args])


def test_links_inside_and_to_the_folder(scene: Scene, cli: Cli) -> None:
    (scene.base / "files").mkdir()
    (scene.base / "config.json").rename(scene.base / "files" / "c")
    (scene.base / "config.json").symlink_to("files/c")
    (scene.base / "runs").symlink_to("/tmp", target_is_directory=True)  # nothing of a folder is read
    scene.base.rename(scene.root / "elsewhere")
    scene.base.symlink_to("elsewhere", target_is_directory=True)
    done = cli(*scene.export_args("ept"))
    assert done.code == 0, done.err
    assert (scene.out / "b" / "config.json").read_bytes() == (scene.root / "elsewhere" / "files" / "c").read_bytes()
