"""What a bundle and the reference are fed: random batches, prompts, the user's own texts."""
