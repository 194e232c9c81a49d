"""`python -m sfvq_jax` is `sfvq-jax`."""

import os
import sys

if sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
    del sys.path[0]  # `python -m` puts it there, and what lies there is not for us to import

from sfvq_jax.cli.main import start

start()
