"""Arrays of zarr, versions 2 and 3, sharded or not, through TensorStore."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from sfvq_jax.io.store import context, is_remote, open_store, reason, settled, store_spec
from sfvq_jax.rows.npy import changed
from sfvq_jax.rows.rows import unreadable

METADATA = {"zarr.json": "zarr3", ".zarray": "zarr"}  # and TensorStore's driver


def zarr_rows(uri: str, name: str = "") -> "StoreRows":
    """Of an array, or of a group's array of this name; a lost chunk is an error, not zeros.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: a group without the name, or what TensorStore does not read.
    """
    path = f"{uri.rstrip('/')}/" + (f"{name.strip('/')}/" if name else "")
    shown = uri + (f"#{name}" if name else "")
    store = open_store(path)
    for file, driver in METADATA.items():
        found = _metadata(store, file, shown)
        if found is None:
            continue
        text, generation = found
        if driver == "zarr3" and _parsed(text, shown).get("node_type") == "group":
            break
        spec = {"driver": driver, "kvstore": store_spec(path), "fill_missing_data_reads": False}
        try:
            opened = settled(ts.open(spec, open=True, read=True, context=context()), shown)
        except ValueError as error:
            raise ValueError(f"{shown} cannot be opened: {reason(error)}") from error
        return StoreRows(opened, shown, (store, file, generation))
    names = _names(path)
    if len(names) == 1 and not name:
        return zarr_rows(uri, names[0])
    if names or _metadata(store, ".zgroup", shown) or _metadata(store, "zarr.json", shown):
        told = f" of {', '.join(names)}" if names else ""
        raise ValueError(f"{shown} is a group{told}: name one of its arrays, {uri}#NAME")
    raise FileNotFoundError(f"there is no array of zarr in {shown}")


def _metadata(store: ts.KvStore, file: str, shown: str) -> tuple[bytes, bytes] | None:
    """What a file holds and its generation, where there is one."""
    try:
        found = settled(store.read(file), shown)
    except ValueError as error:
        raise ValueError(f"{shown} cannot be read: {reason(error)}") from error
    return (found.value, found.stamp.generation) if found.state == "value" else None


def _parsed(text: bytes, shown: str) -> dict:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{shown} is damaged: its zarr.json is no JSON") from error
    return found if isinstance(found, dict) else {}


def _names(path: str) -> list[str]:
    """Of the arrays in a group on a disk; a bucket would have to list all their chunks."""
    if is_remote(path):
        return []
    return sorted(
        {
            file.parent.name
            for kind in METADATA
            for file in Path(path).glob(f"*/{kind}")
            if b'"group"' not in file.read_bytes()
        }
    )


class StoreRows:
    """Rows of a TensorStore [N, …], read into one buffer."""

    def __init__(self, store: ts.TensorStore, name: str, metadata: Any = None):
        # of a part of one, rows begin at 0 all the same
        self._store = store[ts.d[0].translate_to[0]] if store.rank else store
        self._name, self._metadata = name, metadata
        self.shape, self.dtype = tuple(store.shape), np.dtype(store.dtype.numpy_dtype)
        read_chunk = store.chunk_layout.read_chunk.shape
        self.chunk = int(read_chunk[0] or 1) if read_chunk else 1
        self.stamp = "" if metadata is None else metadata[2].hex()

    def read(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """As `Rows.read`."""
        found = np.empty((sum(stop - first for first, stop in spans), *self.shape[1:]), self.dtype)
        into, writes, at = ts.array(found), [], 0
        with ts.Batch() as batch:  # reads of neighbours in a shard become one
            for first, stop in spans:
                part = self._store[first:stop][ts.d[0].translate_to[at]]
                writes.append(into[at : at + stop - first].write(part, batch=batch))
                at += stop - first
        for (first, stop), write in zip(spans, writes, strict=True):
            try:
                settled(write, self._name)
            except ValueError as error:
                raise unreadable(self._name, first, stop, reason(error)) from error
        return found

    def check_unchanged(self) -> None:
        """Raises ValueError where its metadata are written anew; chunks tell nothing."""
        if self._metadata is None:
            return
        store, file, generation = self._metadata
        found = _metadata(store, file, self._name)
        if found is None:
            raise changed(self._name, "it is gone")
        if found[1] != generation:
            raise changed(self._name, "it is written anew")


def strict(store: ts.TensorStore) -> ts.TensorStore:
    """The same, but that a lost chunk is an error, where TensorStore would read it as zeros."""
    spec = store.spec().to_json()
    if spec.get("driver") not in METADATA.values() or spec["kvstore"]["driver"] == "memory":
        return store
    spec["fill_missing_data_reads"] = False
    return ts.open(spec, open=True, read=True, context=context()).result()
