"""What quantizing may do to a weight, to what products read, and to what a bundle answers: each has its own rule."""
