"""Text generation: checks and settings, the back ends that generate tokens, and the tokens' text."""
