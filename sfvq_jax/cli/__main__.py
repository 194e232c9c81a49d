"""`python -m sfvq_jax.cli` is `sfvq-jax`."""

import runpy

runpy.run_module("sfvq_jax", run_name="__main__", alter_sys=True)
