"""The manifest with which KServe runs a Triton model repository."""

from __future__ import annotations

import json
import re

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
      protocolVersion: v2
      storageUri: {storage}
"""
_GPU = """\
      resources:
        limits:
          nvidia.com/gpu: "1"
"""
UNSET = "s3://SET-ME/models"


def kserve_manifest(name: str, storage: str | None, gpu: bool) -> str:
    """An ``InferenceService`` as YAML.

    Args:
        name: the model's name; the service's is as close as Kubernetes allows.
        storage: where the model repository will be; None writes a place that the user must set.
        gpu: whether to ask for one GPU.
    """
    # a JSON string is a YAML string too
    text = _MANIFEST.format(service=json.dumps(_service(name)), storage=json.dumps(storage or UNSET))
    return text + (_GPU if gpu else "")


def _service(name: str) -> str:
    """A DNS label: lower-case letters, digits and hyphens, a letter first, at most 63."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (label if label[:1].isalpha() else f"model-{label}")[:63].rstrip("-")
