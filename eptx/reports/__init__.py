"""What reports are made of: HTML, the page around it, and tables for the terminal."""
