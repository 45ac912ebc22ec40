"""A bundle, opened and ready to answer requests."""

from eptx.runtime.session.session import Session

__all__ = ["Session"]
