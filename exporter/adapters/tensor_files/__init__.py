"""An adapter's tensors as files hold them: safetensors, and, on request only, the pickles of older versions of PEFT."""
