"""Space-filling vector quantisation in JAX: fit a curve to latent vectors, and read it as a map.

The public names are listed in `__init__.pyi`; each is imported when it is first used.
"""

from sfvq_jax.lazy import lazy_package

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_package(__name__, __file__)
