"""LoRA, as PEFT saves it; several adapters on one base are several tasks."""

from eptx.exporter.methods._method import Method
from eptx.exporter.methods.lora.attach import attach
from eptx.exporter.methods.lora.fold import fold
from eptx.exporter.methods.lora.read import matches, read

METHOD = Method("lora", matches, read, fold, attach)
