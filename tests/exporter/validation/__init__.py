"""`eptx validate`: what it passes, and what it fails by name."""

import pytest

# before any test imports it, in this folder or another
pytest.register_assert_rewrite("tests.exporter.validation.workshop")
