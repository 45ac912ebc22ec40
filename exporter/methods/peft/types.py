"""Which of PEFT's methods are exported, and why the others are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Tuner:
    """One of PEFT's methods.

    Attributes:
        title: as its paper writes it.
        part: how the names of its tensors go on after the module's name, or the model's; "" if it has no tensors but
            those that any adapter may have beside its own.
        refusal: why it is not exported, and what to do; None where it is.
        integers: whether it saves indices.
    """

    title: str
    part: str
    refusal: str | None = None
    integers: bool = False


_PROMPT = "it changes the model's input, not its weights; train a LoRA instead"
_BY_DATA = "its update depends on the data, so no weights hold it; train a LoRA instead"
_TWICE = (
    "it runs the whole base first to weigh its LoRA adapters and then once more, and a bundle runs it once; export the "
    "LoRA adapters by themselves, each a task"
)

#: PEFT's own names, in ``peft_type`` of adapter_config.json. A test compares them with the installed PEFT.
TUNERS: Mapping[str, Tuner] = {
    "ADALORA": Tuner("AdaLoRA", ".lora_"),
    "ADAMSS": Tuner("AdaMSS", ".adamss_"),
    "ADAPTION_PROMPT": Tuner("Llama-Adapter", ".adaption_prompt", _PROMPT),
    "BEFT": Tuner("BEFT", ".beft_"),
    "BOFT": Tuner("BOFT", ".boft_"),
    "C3A": Tuner("C3A", ".c3a_"),
    "CARTRIDGE": Tuner("Cartridges", ".cartridge_", _PROMPT),
    "CPT": Tuner("CPT", ".cpt_", _PROMPT),
    "DEFT": Tuner("DEFT", ".deft_"),
    "DELORA": Tuner("DeLoRA", ".delora_"),
    "FOURIERFT": Tuner("FourierFT", ".fourierft_"),
    "FROD": Tuner("FRoD", ".frod_", integers=True),
    "GLORA": Tuner("GLoRA", ".glora_"),
    "GRALORA": Tuner("GraLoRA", ".gralora_"),
    "HIRA": Tuner("HiRA", ".hira_"),
    "HRA": Tuner("HRA", ".hra_"),
    "IA3": Tuner("IA3", ".ia3_"),
    "LN_TUNING": Tuner("LayerNorm tuning", ".ln_tuning_"),
    "LORA": Tuner("LoRA", ".lora_"),
    "LOHA": Tuner("LoHa", ".hada_"),
    "LOKR": Tuner("LoKr", ".lokr_"),
    "MISS": Tuner("MiSS", ".miss_"),
    "MULTITASK_PROMPT_TUNING": Tuner("multitask prompt tuning", ".prompt_", _PROMPT),
    "OFT": Tuner("OFT", ".oft_"),
    "OSF": Tuner("OSF", ".osf_"),
    "PEANUT": Tuner("PEANuT", ".peanut_"),
    "PREFIX_TUNING": Tuner("prefix tuning", ".prompt_", _PROMPT),
    "PROMPT_TUNING": Tuner("prompt tuning", ".prompt_", _PROMPT),
    "PSOFT": Tuner("PSOFT", ".psoft_"),
    "PVERA": Tuner("PVeRA", ".pvera_"),
    "P_TUNING": Tuner("P-tuning", ".prompt_", _PROMPT),
    "RANDLORA": Tuner("RandLoRA", ".randlora_"),
    "ROAD": Tuner("RoAd", ".road_"),
    "SHADOW": Tuner("ShadowPEFT", ".shadow_", _BY_DATA),
    "SHIRA": Tuner("SHiRA", ".shira_", integers=True),
    "SUPERTUNING": Tuner("Super-Tuning", ".supertuning_", integers=True),
    "TINYLORA": Tuner("TinyLoRA", ".tinylora_"),
    "TRAINABLE_TOKENS": Tuner("trainable tokens", ""),
    "UNILORA": Tuner("Uni-LoRA", ".unilora_"),
    "VBLORA": Tuner("VB-LoRA", ".vblora_", integers=True),
    "VERA": Tuner("VeRA", ".vera_"),
    "WAVEFT": Tuner("WaveFT", ".waveft_"),
    "XLORA": Tuner("X-LoRA", ".xlora_", _TWICE),
}
