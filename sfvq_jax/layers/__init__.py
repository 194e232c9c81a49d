"""Quantisers to train inside a network: pure functions, and layers of Flax over them.

The table of contents is `__init__.pyi`; each name is imported when it is first used.
"""

from sfvq_jax.lazy import lazy_package

__getattr__, __dir__, __all__ = lazy_package(__name__, __file__)
