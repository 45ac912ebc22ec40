"""The ``eptx`` command."""
