"""The HTTP side: the server process, its connections, and the REST paths of the Open Inference Protocol v2."""
