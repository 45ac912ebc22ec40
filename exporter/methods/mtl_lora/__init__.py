"""MTL-LoRA (https://arxiv.org/abs/2410.09437), as its released code saves it and `eptx convert` rewrites it."""
