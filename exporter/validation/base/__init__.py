"""The base as transformers reads it: its configuration, tokenizer, tables and attention windows."""
