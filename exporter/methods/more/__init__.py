"""MoRE (https://arxiv.org/abs/2505.22694), as its released code saves it and `eptx convert` rewrites it."""
