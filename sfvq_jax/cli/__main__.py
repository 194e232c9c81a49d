"""`python -m sfvq_jax.cli` is `sfvq-jax`."""

import sys

from sfvq_jax.cli.main import main

sys.exit(main())
