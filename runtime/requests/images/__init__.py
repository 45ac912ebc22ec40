"""Images to rows of pixels, as the image processor of the base makes them, with Pillow and numpy."""
