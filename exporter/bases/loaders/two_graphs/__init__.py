"""Encoder-decoders that generate, as two graphs: their halves, the loader, and how they answer."""
