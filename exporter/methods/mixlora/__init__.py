"""MixLoRA (https://arxiv.org/abs/2404.15159), as `eptx convert` rewrites what MoE-PEFT saves."""
