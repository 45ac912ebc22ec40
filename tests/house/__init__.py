"""The house itself: rooms, names, imports, installs and pages."""
