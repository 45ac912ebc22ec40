"""What an application is told of its bundles; how many replicas there are, and where, is told to Ray Serve."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from eptx.runtime.serving.limits import Limits


class Settings(BaseModel):
    """The ``args`` of an application in Serve's configuration; names that it does not have are refused.

    Attributes:
        bundles: the bundles' folders by the names that requests use; every machine with replicas has them there.
        limits: of requests, queues and runs, those of a queue and of a run for each replica; see
            `eptx.runtime.serving.Limits`. ``max_header``, ``max_connections`` and ``read_timeout`` of the
            head are Serve's own.
        provider: as `eptx.runtime.Session` takes it.
        threads: of ONNX Runtime for one run; None: as many as the replica has CPUs.
        models_per_replica: bundles that one replica holds at once; of more, the one that was used least recently goes
            when another is asked for.
        token_file: bearer tokens, one per line, of which a request must bring one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    bundles: dict[str, Path] = Field(min_length=1)
    limits: Limits = Limits()
    provider: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt | None = None
    models_per_replica: PositiveInt = 4
    token_file: Path | None = None

    @property
    def multiplexed(self) -> bool:
        """Whether a replica holds some of the bundles only, so that it matters which replica a request goes to."""
        return len(self.bundles) > self.models_per_replica
