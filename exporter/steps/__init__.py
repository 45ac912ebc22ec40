"""The steps of an export: plan, load the base, put the adapter in or fold it, store the weights, write."""
