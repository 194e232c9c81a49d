"""States of a fit at a URI, as arrays of zarr; there are neither folders to rename nor locks.

A state's arrays are written first, each process its shards, in the background. Once all are there,
the first process names the state in `fit.json`, on the condition that nobody else has written that
since: a state is whole or not named, and of two fits at one place the later one goes on, and the
earlier one ends at its next save. What is not named was left by a fit that was killed, and goes.
"""

import contextlib
import json
import os
import re
import socket
import time
import uuid
from typing import Any

import jax
import numpy as np
import tensorstore as ts

from sfvq_jax.io.objects import ABSENT, ZARR, open_zarr, store_errors, zarr_metadata
from sfvq_jax.io.reading import one_line, parse_json
from sfvq_jax.io.states import (
    ABOUT,
    DESCRIPTION,
    ID,
    KEPT,
    MOST_BYTES,
    by_name,
    check_same_fit,
    check_shapes,
    no_checkpoints,
)
from sfvq_jax.io.store import context, open_store, settled, store_spec
from sfvq_jax.processes import as_first_process, in_all_processes, in_every_process

# in a description: the states' names, oldest first; the fit that claimed the place last
STATES, HOLDER, RUN = "states", "at work", "run"
STATE = re.compile(r"(\d+)-[0-9a-f]{8}")


class StatesAtUri:
    """As `States`."""

    def __init__(self, uri: str):
        self.place = uri.rstrip("/")
        self.some = False
        self._store = open_store(f"{self.place}/")
        self._run = ""  # ends the names of states that this fit writes
        self._described: dict[str, Any] = {}  # what the description says, in the first process
        self._generation = ABSENT  # of the description
        self._begun = ""  # the state that is written but not named
        self._writes: list[Any] = []

    def claim(self, description: dict[str, Any], held: contextlib.ExitStack) -> list:
        with store_errors(self.place):
            found = settled(self._store.read(DESCRIPTION), self.place)
            there = found.state == "value"
            if not there and settled(self._store.list(), self.place):
                raise no_checkpoints(self.place)
        if there:
            check_same_fit(self.place, _text(found.value), description)
            description = parse_json(found.value)
        self._described = {ID: uuid.uuid4().hex, STATES: []} | description
        self._generation = found.stamp.generation
        self._run = uuid.uuid4().hex[:8]
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = f"process {os.getpid()} on {socket.gethostname()}, since {since}"
        self._described |= {HOLDER: holder, RUN: self._run}
        self._describe()
        self._delete_others()
        names = self._described[STATES]
        number = int(names[-1].split("-")[0]) if names else -1
        return [number, self._described[ID], self._run]

    def join(self, claimed: list) -> None:
        number, found_by_first, self._run = claimed
        self.some = number >= 0
        with store_errors(self.place):
            found = settled(self._store.read(DESCRIPTION), self.place)
        seen = parse_json(found.value or b"{}").get(ID)
        if seen != found_by_first:
            raise ValueError(
                f"{self.place} is not the folder of checkpoints that process 0 sees under that"
                " name: all processes need one bucket"
            )

    def newest(self) -> str | None:
        """A state that somebody has deleted is passed over."""
        for name in reversed(self._described[STATES]):
            with store_errors(self.place):
                if settled(self._store.list(_below(f"{name}/")), self.place):
                    return name
        return None

    def about(self, name: str) -> str:
        with store_errors(self.place):
            return _text(settled(self._store.read(f"{name}/{ABOUT}"), self.place).value)

    def read(self, name: str, wanted: Any) -> Any:
        """Each device's part by its process."""
        return in_every_process(lambda: self._read(name, wanted))

    def _read(self, name: str, wanted: Any) -> Any:
        with store_errors(self.place):
            opened = {
                array: ts.open(
                    {
                        "driver": "zarr3",
                        "kvstore": store_spec(f"{self.place}/{name}/{array}/"),
                        "fill_missing_data_reads": False,
                    },
                    open=True,
                    context=context(),
                )
                for array in by_name(wanted)
            }
            stores = {array: settled(store, self.place) for array, store in opened.items()}
            leaves = [stores[array] for array in by_name(wanted)]
            found = [jax.ShapeDtypeStruct(s.shape, s.dtype.numpy_dtype) for s in leaves]
            tree = jax.tree.structure(wanted)
            check_shapes(jax.tree.unflatten(tree, found), wanted)
            arrays = [
                _read_array(store, leaf)
                for store, leaf in zip(leaves, jax.tree.leaves(wanted), strict=True)
            ]
        return jax.tree.unflatten(tree, arrays)

    def write(self, number: int, arrays: Any, about: str) -> None:
        self._begun = f"{number}-{self._run}"
        with store_errors(self.place):
            for name, array in by_name(arrays).items():
                self._write_array(f"{self._begun}/{name}", array)
            self._write_note(f"{self._begun}/{ABOUT}", about)

    def _write_array(self, name: str, array: Any) -> None:
        """The shards that this process has, each of them a chunk."""
        if isinstance(array, jax.Array):
            chunk = array.sharding.shard_shape(array.shape)
            shards = [(s.index, s.data) for s in array.addressable_shards if s.replica_id == 0]
        else:  # alike in all processes
            chunk, shards = array.shape, [(..., array)] * (jax.process_index() == 0)
        metadata = zarr_metadata(array.shape, array.dtype, [max(size, 1) for size in chunk])
        store = open_zarr(f"{self.place}/{name}", metadata)
        for index, data in shards:
            self._writes.append(store[index].write(np.asarray(data)))
        self._write_note(f"{name}/{ZARR}", json.dumps(metadata))

    def _write_note(self, name: str, text: str) -> None:
        if jax.process_index() == 0:
            self._writes.append(self._store.write(name, text.encode()))

    def look(self) -> None:
        if self._begun and all(in_all_processes(all(write.done() for write in self._writes))):
            self.wait()

    def wait(self) -> None:
        begun, self._begun = self._begun, ""  # one that fails is not tried again
        if not begun:
            return
        in_every_process(self._finish_writes)
        as_first_process(lambda: self._name(begun))
        self.some = True

    def close(self) -> None:
        """What was begun is named yet, unless others may not wait for it."""
        if jax.process_count() == 1:
            self.wait()

    def _finish_writes(self) -> None:
        writes, self._writes = self._writes, []
        with store_errors(self.place):
            for write in writes:
                settled(write, self.place)

    def _name(self, begun: str) -> None:
        """In the first process."""
        self._described[STATES] = [*self._described[STATES], begun][-KEPT:]
        self._describe()
        self._delete_others()

    def _describe(self) -> None:
        """Writes the description, unless another fit has."""
        text = json.dumps(self._described, indent=1).encode() + b"\n"
        with store_errors(self.place):
            write = self._store.write(DESCRIPTION, text, if_equal=self._generation)
            stamp = settled(write, self.place)
            if not stamp.generation:  # of a put that was tried again, since its answer was lost
                found = settled(self._store.read(DESCRIPTION), self.place)
                if found.value != text:
                    raise ValueError(
                        f"another fit is at work in {self.place}{_by(found.value)}: name another"
                        " folder for one of them"
                    )
                stamp = found.stamp
        self._generation = stamp.generation

    def _delete_others(self) -> None:
        """States that are not named, older ones and those of fits that were killed."""
        with store_errors(self.place):
            names = {
                key.partition(b"/")[0].decode() for key in settled(self._store.list(), self.place)
            }
            for name in filter(STATE.fullmatch, names - {*self._described[STATES]}):
                settled(self._store.delete_range(_below(f"{name}/")), self.place)


def _read_array(store: ts.TensorStore, wanted: Any) -> Any:
    sharding = getattr(wanted, "sharding", None)
    if sharding is None:
        return store.read().result()
    return jax.make_array_from_callback(
        store.shape, sharding, lambda index: store[index].read().result()
    )


def _below(prefix: str) -> ts.KvStore.KeyRange:
    return ts.KvStore.KeyRange(prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))


def _text(data: bytes) -> str:
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    return data.decode("utf-8")


def _by(description: bytes) -> str:
    """Who is at work, as far as a description tells."""
    with contextlib.suppress(ValueError, RecursionError):
        holder = parse_json(description).get(HOLDER)
        return f" ({one_line(ValueError(holder))})"
    return ""
