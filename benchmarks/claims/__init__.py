"""What README and docs/results/index.md claim, in the order of their tables.

Each function of these files is a claim. Its figures are read from benchmarks/results, and what its
sentence says without a figure is checked by `holds`, which fails where the results no longer say
so. `python -m benchmarks.pages` writes the sentences, and anchors where their rows are.
"""

from benchmarks.claims import curves, machines, models  # noqa: F401
from benchmarks.claims.claim import CLAIMS, Claim

__all__ = ["CLAIMS", "Claim"]
