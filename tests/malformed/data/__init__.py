"""Damaged rows, budgets and routes of a calibration."""
