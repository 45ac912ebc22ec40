"""Errors that eptx raises, each with the exit code that the command line gives it.

Every message is one line that names what is wrong and what to do about it.
"""

from __future__ import annotations

from typing import ClassVar


class EptxError(Exception):
    """Root of the errors that eptx raises on purpose.

    Attributes:
        exit_code: what the ``eptx`` command exits with when this error ends it.
    """

    exit_code: ClassVar[int] = 1


class UsageError(EptxError):
    """The call itself is wrong: contradictory or missing options."""

    exit_code = 2


class BadInputError(EptxError):
    """Something that was given cannot be used: an adapter, a base model, a bundle or a request."""

    exit_code = 3


class AdapterError(BadInputError):
    """The adapter's files are damaged, incomplete, or do not describe an adapter that eptx reads."""


class BaseModelError(BadInputError):
    """The base model's files are damaged, or the adapter does not fit them."""


class BundleError(BadInputError):
    """The bundle is damaged, incomplete, or of a version that this eptx does not read."""


class RequestError(BadInputError):
    """The inputs or the task of one call to a session are wrong."""


class TooLongError(RequestError):
    """A prompt, and the answer that is wanted of it, do not fit into the model's context."""


class DataError(BadInputError):
    """Calibration or validation data cannot be read."""


class ValidationError(EptxError):
    """The bundle does not compute what the trained model computed."""

    exit_code = 4


class NotSupportedError(EptxError):
    """Understood, but not something this eptx (or this machine) can do."""

    exit_code = 5


class LimitError(EptxError):
    """A limit on memory, size or time was hit."""

    exit_code = 6
