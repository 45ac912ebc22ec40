"""The cells that are refused, with the very message."""

from __future__ import annotations

#: (row or setting, mode) -> the message. A setting's cell is the same on every row that it is tried on.
REFUSALS: dict[tuple[str, str], str] = {}

#: Settings of PEFT's other methods with which an update has full rank -> PEFT's name of the method.
_FULL_RANK = {
    **dict.fromkeys(("BOFT", "BOFT, two factors"), "BOFT"),
    "C3A": "C3A",
    "FourierFT": "FOURIERFT",
    "FRoD": "FROD",
    **dict.fromkeys(("GLoRA", "GLoRA, vectors"), "GLORA"),
    "HiRA": "HIRA",
    "LoHa, high rank": "LOHA",
    "MiSS, Bat": "MISS",
    **dict.fromkeys(("OFT", "OFT, shared blocks", "OFT, all biases", "OFT, constrained"), "OFT"),
    "RandLoRA": "RANDLORA",
    **dict.fromkeys(("RoAd", "RoAd, four numbers"), "ROAD"),
    "SHiRA": "SHIRA",
    "WaveFT": "WAVEFT",
}
REFUSALS |= {
    (setting, "conditioned"): f"task0/adapter_config.json: peft_type {kind} changes weights by matrices of full rank "
    "here, which hold as much as the weights themselves: use --mode static"
    for setting, kind in _FULL_RANK.items()
}
