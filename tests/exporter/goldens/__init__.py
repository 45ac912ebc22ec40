"""What the exporter reads and folds, against outputs of the released code."""
