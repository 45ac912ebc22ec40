"""Inputs that are damaged, hostile or contradictory: each is refused in one line, with its exit code."""

import pytest

pytest.register_assert_rewrite("tests.malformed.scene")
