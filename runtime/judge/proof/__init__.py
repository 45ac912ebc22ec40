"""Proofs: what the reference gave for a bundle, in one file, so that any machine can judge the bundle without PyTorch.

tensors (the file) -> content (what it says) -> record (writes one) and judge (a bundle by one)
"""
