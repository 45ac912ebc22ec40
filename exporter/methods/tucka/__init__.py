"""TuckA, Tucker Adaptation (arXiv 2511.06859), as released."""
