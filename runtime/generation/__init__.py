"""Text generation: settings and checks, the back ends that make tokens, and the text that they make."""
