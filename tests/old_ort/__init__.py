"""What eptx says of older releases of ONNX Runtime, tried with their wheels: `make old-ort`."""
