"""What several folders of tests use: small models, adapters, bundles and clients."""
