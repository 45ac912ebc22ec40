"""The trained model, run as the reference: in float64, and in the export's own type for the noise floor."""
