"""Settings for every test, made before the libraries that read them are imported."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run several at a time
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network

from hypothesis import settings

# Continuous integration tries the same examples every time; elsewhere each run tries others.
settings.register_profile("eptx", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "eptx")
