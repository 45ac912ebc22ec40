"""What a bundle holds, compared with its sources without running it: manifest, files, tensors."""
