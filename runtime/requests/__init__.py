"""A request before the model sees it: texts to tokens, checks of arrays, names of tasks to ids."""
