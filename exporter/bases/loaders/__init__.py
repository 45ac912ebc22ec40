"""A base model as ONNX graphs, by the exporter that is best for it."""
