"""The examples that serve a bundle."""
