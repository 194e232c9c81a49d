"""The command line, `sfvq-jax`: a file for each command, and `main`, which runs them."""

from sfvq_jax.cli.main import main

__all__ = ["main"]
