"""Routers, and the routes that they choose."""
