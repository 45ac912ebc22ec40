"""Reading adapters: what their folders hold, as arrays, whatever the method."""
