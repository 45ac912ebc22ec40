"""The bundle, run by ONNX Runtime: as it is shipped, and with its inside visible."""
