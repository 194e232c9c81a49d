"""Files at URIs: objects, each of which is put whole or not at all.

A condition on a put keeps what another process has put meanwhile. What consists of many objects is
named at last by a small one, and without that is not there.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tensorstore as ts

from sfvq_jax.io.store import context, is_remote, open_store, reason, settled, store_spec

ABSENT = b"\x02"  # as a condition: TensorStore's generation of what is not there
ZARR = "zarr.json"  # names the chunks of an array
STATUS = re.compile(r"[A-Z_]+: ")  # begins what TensorStore says
FULL = ("No space left", "File too large", "quota exceeded")


def read_object(uri: str) -> bytes | None:
    """What lies at a URI; None where nothing does."""
    store = open_store(uri)
    with store_errors(uri):
        found = settled(store.read(""), uri)
        if found.state == "value":
            return found.value
    is_object(uri)  # S3 says the same where there is no bucket; a listing tells
    return None


def is_object(uri: str) -> bool:
    """Whether there is an object of this name."""
    store_spec(uri)  # which refuses it by its whole name
    folder, _, name = uri.rpartition("/")
    store = open_store(f"{folder}/")
    with store_errors(uri):
        return bool(settled(store.list(ts.KvStore.KeyRange(name, f"{name}\0")), uri))


def put_object(uri: str, data: bytes, *, overwrite: bool) -> None:
    """Writes an object, or raises FileExistsError where there is one."""
    store = open_store(uri)
    with store_errors(uri):
        condition = {} if overwrite else {"if_equal": ABSENT}
        stamp = settled(store.write("", data, **condition), uri)
    # a put whose answer was lost is tried again, and finds itself
    if not stamp.generation and read_object(uri) != data:
        raise FileExistsError(f"{uri} was written meanwhile by another process")


def delete_object(uri: str) -> None:
    store = open_store(uri)
    with store_errors(uri):
        settled(store.write("", None), uri)


def zarr_metadata(
    shape: Sequence[int], dtype: Any, chunk: Sequence[int], attributes: Any = None
) -> dict[str, Any]:
    """What the zarr.json of an array of zarr v3 says; floats that are missing are NaN."""
    dtype = ts.dtype(dtype)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": {"bool": False}.get(dtype.name, "NaN" if "float" in dtype.name else 0),
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "crc32c"},
        ],
        "attributes": attributes or {},
    }


def open_zarr(place: str | Path, metadata: dict[str, Any]) -> ts.TensorStore:
    """An array whose zarr.json need not be there; a chunk that is not is an error when read."""
    spec = {
        "driver": "zarr3",
        "kvstore": store_spec(f"{place}/"),
        "metadata": metadata,
        "fill_missing_data_reads": False,
        "store_data_equal_to_fill_value": True,
    }
    return ts.open(spec, open=True, assume_metadata=True, context=context()).result()


@contextlib.contextmanager
def store_errors(place: str | Path) -> Iterator[None]:
    """What TensorStore raises, of many kinds, as an OSError that names the place."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        text = str(error)
        if not STATUS.match(text):
            raise
        if any(words in text for words in FULL):
            raise OSError(f"{place} cannot be written: the disk is full") from error
        if is_remote(place) and "NOT_FOUND" in text:
            bucket = urlsplit(str(place)).netloc
            raise FileNotFoundError(f"{place}: there is no bucket {bucket}") from error
        denied = "PERMISSION_DENIED" in text or "UNAUTHENTICATED" in text
        kind = PermissionError if denied else OSError
        raise kind(f"{place}: {reason(error)}") from error
