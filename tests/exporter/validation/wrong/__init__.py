"""What a validation must see: bundles that are wrong, bundles that are honest, and a judge with one eye shut."""
