"""Quantized weights as a graph stores them, and the rules that they must keep to."""
