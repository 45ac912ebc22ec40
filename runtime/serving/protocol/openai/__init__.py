"""OpenAI's chat and text completions, as its clients send and read them."""
