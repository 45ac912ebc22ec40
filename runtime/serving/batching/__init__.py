"""Queues, and the threads that answer in one batch the requests that wait in them."""
