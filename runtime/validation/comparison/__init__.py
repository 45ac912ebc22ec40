"""What the bundle computes, compared with the reference, and the verdict on every task."""
