"""Editing graphs: where an adapter's operators, constants and heads go."""
