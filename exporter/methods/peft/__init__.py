"""PEFT's other methods: PEFT itself says on the base what each of them makes of a module, and that is exported."""
