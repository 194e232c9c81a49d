"""Generators of other projects in Flax, loaded from converted checkpoints."""
