"""The Open Inference Protocol v2 on the wire: bodies of requests and answers."""
