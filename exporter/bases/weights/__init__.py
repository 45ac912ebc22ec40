"""A base's files: its configuration, its class and its weights."""
