"""Polytropon (Poly, https://arxiv.org/abs/2202.13914) and Multi-Head Routing (MHR, 2211.03831), as PEFT has them."""
