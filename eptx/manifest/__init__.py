"""``eptx.json``: what a bundle says about itself, and what must hold for it."""
