"""What a long command has done so far, kept beside its output, so that it can go on from there.

The folder `OUTPUT.part` holds `about.json`, which tells the run from others, and a file for each
part that is done: NumPy's .npz of its arrays and a JSON text of the rest. Reading one runs nothing.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.io.output import followed, library_version, locked, told_by_name

ABOUT, UNFINISHED = "about.json", "unfinished"
VERSION = "version of this library"  # in `about`
ENDING = ".npz"
TREE = "tree"  # in a part's file: what is no array
_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, ValueError, LookupError, TypeError)


class Parts(MutableMapping[str, Any]):
    """Results by name, each in a file that is written whole or not at all; `open` makes one.

    Attributes:
      folder: where they are.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], types: Sequence[type]):
        self.folder, self._about = folder, json.dumps({VERSION: library_version(), **about})
        self._types = {kind.__name__: kind for kind in types}
        self._held = contextlib.ExitStack()

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, output: str | Path, about: Mapping[str, Any], types: Sequence[type]
    ) -> Iterator["Parts"]:
        """Yields the parts that are there; they are removed at the end, unless by an exception.

        The folder is made with the first part.

        Args:
          output: what the command writes.
          about: JSON values that tell this run from others.
          types: NamedTuples and dataclasses, of different names, that parts are made of, beside
            arrays, dicts, lists, tuples, strings and numbers.

        Raises:
          ValueError: the folder keeps parts of another run, or another process is at work in it.
          OSError: it cannot be read or written.
        """
        path = followed(output)
        parts = cls(path.with_name(path.name + ".part"), about, types)
        with parts._held:
            if parts.folder.exists():
                parts._hold()
                parts._check_about()
            yield parts
            shutil.rmtree(parts.folder, ignore_errors=True)

    def __getitem__(self, name: str) -> Any:
        try:
            with self._file(name).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                return self._decoded(json.loads(str(file[TREE])), file)
        except _UNREADABLE as error:  # none, or damaged: it is made anew
            raise KeyError(name) from error

    def __setitem__(self, name: str, value: Any) -> None:
        arrays: dict[str, np.ndarray] = {}
        tree = json.dumps(self._encoded(value, arrays))
        with told_by_name(self.folder):
            self._make_folder()
            temporary = self.folder / UNFINISHED
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **{TREE: np.array(tree)}, **arrays)
            os.replace(temporary, self._file(name))

    def __delitem__(self, name: str) -> None:
        self._file(name).unlink()

    def __contains__(self, name: object) -> bool:
        return self._file(str(name)).exists()

    def __iter__(self) -> Iterator[str]:
        raise TypeError("parts are known by their names' hashes: ask for one by its name")

    def __len__(self) -> int:
        return len(list(self.folder.glob(f"*{ENDING}")))

    def _file(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}{ENDING}"

    def _make_folder(self) -> None:
        if self.folder.exists():
            return
        self.folder.mkdir()
        self._hold()
        temporary = self.folder / UNFINISHED
        temporary.write_text(self._about, encoding="utf-8")
        os.replace(temporary, self.folder / ABOUT)

    def _hold(self) -> None:
        if self._held.enter_context(locked(self.folder)) is False:
            raise ValueError(
                f"another process is at work in {self.folder}: wait for it, or write elsewhere"
            )

    def _check_about(self) -> None:
        """Raises ValueError for a folder of another run, or of another kind."""
        path = self.folder / ABOUT
        if {file.name for file in self.folder.iterdir()} <= {UNFINISHED}:  # it was just made
            path.write_text(self._about, encoding="utf-8")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or VERSION not in found:
            raise ValueError(
                f"{self.folder} is where parts that are done would be kept, and is of another kind:"
                " move it, or write elsewhere"
            )
        expected = json.loads(self._about)
        differ = [name for name in expected if found.get(name) != expected[name]]
        if differ:
            raise ValueError(
                f"{self.folder} keeps the parts of a run with another {' and '.join(differ[:3])}:"
                " run that one to its end, delete the folder, or write elsewhere"
            )

    def _encoded(self, value: Any, arrays: dict[str, np.ndarray]) -> Any:
        def encoded(value: Any) -> Any:
            return self._encoded(value, arrays)

        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray | jax.Array):
            name = f"a{len(arrays)}"
            arrays[name] = np.asarray(value)
            return {"array": name, "device": isinstance(value, jax.Array)}
        if self._types.get(type(value).__name__) is type(value):
            fields = getattr(value, "_fields", None) or [f.name for f in dataclasses.fields(value)]
            parts = {name: encoded(getattr(value, name)) for name in fields}
            return {"type": type(value).__name__, "fields": parts}
        if isinstance(value, dict):
            return {"dict": [[encoded(key), encoded(each)] for key, each in value.items()]}
        if type(value) is tuple:
            return {"tuple": [encoded(each) for each in value]}
        if isinstance(value, list):
            return [encoded(each) for each in value]
        raise TypeError(f"a part holds a {type(value).__name__}, which is not kept")

    def _decoded(self, tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
        def decoded(tree: Any) -> Any:
            return self._decoded(tree, arrays)

        if isinstance(tree, list):
            return [decoded(each) for each in tree]
        if not isinstance(tree, dict):
            return tree
        if "array" in tree:
            array = arrays[tree["array"]]
            return jnp.asarray(array) if tree["device"] else array
        if "dict" in tree:
            return {decoded(key): decoded(each) for key, each in tree["dict"]}
        if "tuple" in tree:
            return tuple(decoded(each) for each in tree["tuple"])
        fields = {name: decoded(each) for name, each in tree["fields"].items()}
        return self._types[tree["type"]](**fields)
