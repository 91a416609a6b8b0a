"""Chips: the contract (`chip`), YAML files (`load`), overrides, designs, and their physics."""
