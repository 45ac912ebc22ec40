"""Asks a server for several tasks at once: ``python client.py "A fine film." "A good movie." sst2 mnli stsb``."""

import argparse

import numpy as np
import tritonclient.http as triton

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("text")
parser.add_argument("text_pair")
parser.add_argument("tasks", nargs="+")
parser.add_argument("--model", default="minilm")
parser.add_argument("--server", default="localhost:8000")
given = parser.parse_args()

inputs = []
for name in ("text", "text_pair"):
    tensor = triton.InferInput(name, [len(given.tasks)], "BYTES")
    tensor.set_data_from_numpy(np.array([getattr(given, name)] * len(given.tasks), dtype=object))
    inputs.append(tensor)
with triton.InferenceServerClient(given.server) as client:
    answer = client.infer(given.model, inputs, parameters={"tasks": ",".join(given.tasks)})
for task, label in zip(answer.as_numpy("task"), answer.as_numpy("label"), strict=True):
    print(f"{task.decode()}: {label.decode()}")
