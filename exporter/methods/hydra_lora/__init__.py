"""HydraLoRA (https://arxiv.org/abs/2404.19245) and LoRAMoE (2312.09979), as `eptx convert` rewrites what they save."""
