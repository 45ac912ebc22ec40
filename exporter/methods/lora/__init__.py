"""LoRA, as PEFT saves it; several adapters on one base are several tasks."""
