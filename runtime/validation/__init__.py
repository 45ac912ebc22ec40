"""Validates what a bundle computes by what is known of it; needs numpy and ONNX Runtime alone.

What is known comes from the trained model itself (`eptx.exporter.validation`), or from a proof that it has left.

batch -> running (the bundle) -> comparison with an expectation -> report
"""
