"""Files that may be hostile, read with care; files and folders, written in one step."""
