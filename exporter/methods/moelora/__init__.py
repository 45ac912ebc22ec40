"""MOELoRA (https://arxiv.org/abs/2310.18339), as its released code saves it and `eptx convert` rewrites it."""
