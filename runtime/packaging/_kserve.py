"""The manifest with which KServe runs a Triton model repository."""

from __future__ import annotations

import json
import re

from eptx.runtime.packaging._releases import KSERVE_TRITON

_MANIFEST = """\
# Upload the model repository (the folder that holds the model's) to where storageUri says, then
# kubectl apply -f kserve.yaml
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {service}
spec:
  predictor:
    model:
      modelFormat:
        name: onnx
      runtime: kserve-tritonserver
{version}      protocolVersion: v2
      storageUri: {storage}
"""
_GPU = """\
      resources:
        limits:
          nvidia.com/gpu: "1"
"""
_VERSION = """\
      runtimeVersion: {triton}-py3  # the first that loads the model; KServe's own is {own}
"""
UNSET = "s3://SET-ME/models"


def kserve_manifest(name: str, storage: str | None, gpu: bool, triton: str | None) -> str:
    """An ``InferenceService`` as YAML.

    Args:
        name: the model's name; the service's is as close as Kubernetes allows.
        storage: where the model repository will be; None writes a place that the user must set.
        gpu: whether to ask for one GPU.
        triton: the first release of Triton that loads the model; None where that is not known.
    """
    # a JSON string is a YAML string too
    newer = triton is not None and triton > KSERVE_TRITON
    version = _VERSION.format(triton=triton, own=KSERVE_TRITON) if newer else ""
    service, place = json.dumps(_service(name)), json.dumps(storage or UNSET)
    text = _MANIFEST.format(service=service, version=version, storage=place)
    return text + (_GPU if gpu else "")


def _service(name: str) -> str:
    """A DNS label: lower-case letters, digits and hyphens, a letter first, at most 63."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (label if label[:1].isalpha() else f"model-{label}")[:63].rstrip("-")
