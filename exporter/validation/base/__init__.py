"""The base as transformers reads it: its configuration, its tokenizer, its tables, how far it looks."""
