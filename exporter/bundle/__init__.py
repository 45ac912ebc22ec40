"""Writing a bundle: the models, the manifest, the files beside them and the model card."""
