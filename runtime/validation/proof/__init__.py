"""Proofs: what the reference gave for a bundle, in one file, so that any machine can validate it without PyTorch.

tensors (the file) -> content (what it says) -> record (writes one) and validate (a bundle by one)
"""
