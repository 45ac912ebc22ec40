"""A method that eptx does not have, as a template: each task adds a vector of its own to a module's output."""
