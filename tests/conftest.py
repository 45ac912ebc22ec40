"""Settings for every test, made before the libraries that read them are imported."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run several at a time
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network

import pytest
from hypothesis import settings

# Continuous integration tries the same examples every time; elsewhere each run tries others.
settings.register_profile("eptx", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "eptx")


@pytest.fixture(scope="session", autouse=True)
def _every_bundle_fits_the_schema() -> Iterator[None]:
    """Holds each bundle that a test writes to eptx.schema.json."""
    from eptx.bundle import Bundle, BundleWriter, Manifest
    from eptx.files.strict_json import dump_json
    from tests.support.schema import SCHEMA

    finish = BundleWriter.finish

    def checked(self: BundleWriter, manifest: Manifest) -> Bundle:
        bundle = finish(self, manifest)
        SCHEMA.validate(json.loads(dump_json(bundle.manifest.to_json())))
        return bundle

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BundleWriter, "finish", checked)
        yield
