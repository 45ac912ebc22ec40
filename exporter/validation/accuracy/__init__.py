"""What quantizing loses: drops of metrics against fp32, divergence of outputs, ranges of activations."""
