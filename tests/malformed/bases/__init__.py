"""Damaged, odd and unfit base models, and links in their folders."""
