from .health import MapQuality, map_quality
from .rows import RowsAt, rows_at
from .verdicts import Finding, report

__all__ = [
    "Finding",
    "MapQuality",
    "RowsAt",
    "map_quality",
    "report",
    "rows_at",
]
