"""What a curve is for: directions with names, edits, new samples, and the health of a map.

The public names are listed in `__init__.pyi`; each is imported when it is first used.
"""

from sfvq_jax.lazy import lazy_package

__getattr__, __dir__, __all__ = lazy_package(__name__, __file__)
