"""An application's settings. Ray Serve has its own settings for how many replicas there are, and where."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from eptx.providers import PROVIDER_CHOICES
from eptx.runtime.serving.limits import Limits


class Settings(BaseModel):
    """The ``args`` of an application in Serve's configuration; names that it does not have are refused.

    Attributes:
        bundles: the bundles' folders by the names that requests use; every machine with replicas has them there.
        limits: of requests, queues and runs; each replica has its own queues and runs. See
            `eptx.runtime.serving.Limits`. Serve itself sets the limits of connections and headers.
        provider: as `eptx.runtime.Session` takes it.
        threads: of ONNX Runtime for one run; None: as many as the replica has CPUs.
        models_per_replica: bundles that one replica holds at once; to load another one, it closes the one that was used
            least recently.
        token_file: bearer tokens, one per line; every request must bring one of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    bundles: dict[str, Path] = Field(min_length=1)
    limits: Limits = Limits()
    provider: str = "auto"
    threads: PositiveInt | None = None
    models_per_replica: PositiveInt = 4
    token_file: Path | None = None

    @field_validator("provider")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in PROVIDER_CHOICES:
            raise ValueError(f"choose one of {', '.join(PROVIDER_CHOICES)}")
        return name

    @property
    def multiplexed(self) -> bool:
        """Whether a replica holds some of the bundles only, so that it matters which replica a request goes to."""
        return len(self.bundles) > self.models_per_replica
