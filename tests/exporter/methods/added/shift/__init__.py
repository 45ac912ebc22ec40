"""A method that is not in eptx: every task adds a vector of its own to a module's output, y' = y + v[task]."""
