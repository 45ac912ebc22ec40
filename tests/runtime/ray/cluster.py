"""A small Ray cluster in processes of its own: ``python -m tests.runtime.ray.cluster FOLDER``.

Each line on standard input is a Serve configuration as JSON; "ready" is the answer when it is deployed. It ends, with
all its processes, when standard input does.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray writes one into the user's folder
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "eptx.runtime.ray_serve:proxy_middlewares",
}

import ray
from ray import serve
from ray.serve._private.api import serve_start
from ray.serve.schema import ServeDeploySchema


def main(folder: str) -> None:
    """Deploys what it is told to."""
    ray.init(
        num_cpus=2,  # what Ray counts, not what it takes: the example starts on two processors
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=folder,
    )
    try:
        for line in sys.stdin:
            config = ServeDeploySchema.model_validate(json.loads(line))
            # as `serve run` does
            client = serve_start(http_options=config.http_options.model_dump(), proxy_location=config.proxy_location)
            client.deploy_apps(config, _blocking=True)
            _wait_for_replicas()
            print("ready", flush=True)
    finally:
        ray.shutdown()  # of a cluster that began here: all of it


def _wait_for_replicas() -> None:
    """Until each deployment is as its configuration says."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        apps = serve.status().applications.values()
        if all(one.status == "HEALTHY" for app in apps for one in app.deployments.values()):
            return
        time.sleep(0.1)
    raise TimeoutError(str(serve.status()))


if __name__ == "__main__":
    main(sys.argv[1])
