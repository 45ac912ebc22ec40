"""Training of adapters with task heads, by transformers' ``Trainer``. Its public names are those of `eptx.peft`.

The tuner of a method that PEFT does not have is in the method's folder: `eptx.exporter.methods.<method>.model`.
"""
