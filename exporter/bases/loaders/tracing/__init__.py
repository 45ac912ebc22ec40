"""Classes of transformers as ONNX graphs: what they are given while they are traced, and the trace."""
