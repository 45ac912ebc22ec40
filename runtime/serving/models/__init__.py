"""The bundles that a server holds: each with its session, its queues, and the steps before and after the model."""
