"""Side by side with other implementations, and how the bundled models were trained.

`python -m benchmarks` lists them all.
"""

import importlib.util
import sys
from types import TracebackType

# what benchmarks import beside the library's own dependencies, and what installs it
OPTIONAL = {
    "boto3": ".[test]",
    "datasets": ".[test]",
    "diveq": ".[benchmarks]",
    "dm_pix": ".[benchmarks]",
    "faiss": ".[benchmarks]",
    "grain": ".[test]",
    "h5py": ".[hdf5]",
    "moto": ".[test]",
    "playwright": ".[test]",
    "pyarrow": ".[parquet]",
    "pytorch_pretrained_biggan": ".[benchmarks]",
    "sklearn": ".[benchmarks]",
    "starlette": ".[explore]",
    "torch": ".[benchmarks]",
    "zarr": ".[test]",
}


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _say_what_is_missing(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A package that is not installed is one sentence."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name not in OPTIONAL:
        sys.__excepthook__(kind, error, trace)
        return
    print(
        f"this benchmark takes the package {name}, which is not installed: pip install"
        f" '{OPTIONAL[name]}'",
        file=sys.stderr,
    )


sys.excepthook = _say_what_is_missing
