"""EPT, Expert Pyramid Tuning (arXiv 2603.12577), as released."""
