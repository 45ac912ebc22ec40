"""``python -m eptx``."""

from eptx.cli import main

main()
