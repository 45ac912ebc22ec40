"""Wrong bundles, which must fail; honest bundles, which must pass; and validations without one of their checks."""
