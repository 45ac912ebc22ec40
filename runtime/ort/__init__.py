"""ONNX Runtime: its providers, its sessions, and the native kernels that sessions may use."""
