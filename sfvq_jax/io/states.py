"""What the checkpoints of a fit are, wherever they lie: states, and a note of whose they are."""

import json
import warnings
from contextlib import ExitStack
from typing import Any, Protocol

import jax
import numpy as np

from sfvq_jax.io.reading import one_line, parse_json

FORMAT_VERSION = 4
DESCRIPTION, ABOUT = "fit.json", "about.json"
KEPT = 2  # states
MOST_BYTES = 2**20  # of a file other than the arrays
ID = "id"  # in a description: of the place, drawn when it is made
SKETCH = "sketch of some latents"  # in a description: floats, compared with a tolerance
TOLERANCE = 1e-3  # since other devices round otherwise
SOLVER = (
    "solver"  # in a description: its name and numbers, of which those added later may be absent
)
STAMP = "stamp"  # in a description: what the latents are called, and what tells that they change
DEFAULTS = "defaults"  # in a description: what they then stand for; says nothing of the fit itself
STAGES = "stages"  # in a description: the plan of each; those that both have are compared


class States(Protocol):
    """Where states are kept. All but `claim` and `newest` are called in every process.

    Attributes:
      place: its name.
      some: whether it is known to keep a state.
    """

    place: str

    @property
    def some(self) -> bool: ...

    def claim(self, description: dict[str, Any], held: ExitStack) -> list:
        """Makes the place, or checks that it is of this fit, in the first process.

        Returns:
          The number of the last state, the place's id, and what else `join` takes.
        """
        ...

    def join(self, claimed: list) -> None:
        """Raises ValueError in a process that does not see what the first one claimed."""
        ...

    def newest(self) -> str | None:
        """The name of the newest state, once it is known that it is as it was written."""
        ...

    def about(self, name: str) -> str:
        """What was noted with a state."""
        ...

    def read(self, name: str, wanted: Any) -> Any:
        """The arrays of a state; whatever is wrong with them raises."""
        ...

    def write(self, number: int, arrays: Any, about: str) -> None:
        """Begins to write a state, which is not there before it is whole."""
        ...

    def look(self) -> None:
        """What is to be done once a state is written, if it is."""
        ...

    def wait(self) -> None:
        """Until what was begun is there, and only the last states are."""
        ...

    def close(self) -> None: ...


def plain_description(description: dict[str, Any]) -> dict[str, Any]:
    """As JSON keeps it, and with the format's version."""
    description = {"format_version": FORMAT_VERSION, **description}
    return json.loads(json.dumps(description, default=_plain))


def check_same_fit(place: str, text: str | None, description: dict[str, Any]) -> dict[str, Any]:
    """What a place's description says.

    Args:
      place: its name.
      text: of the description there; None where it cannot be read.
      description: of this fit.

    Raises:
      ValueError: it is damaged, or of another fit.
    """
    try:
        found = parse_json(text or "")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{place}/{DESCRIPTION} is damaged: name another folder for checkpoints"
        ) from error
    for name in description:
        if name not in (DEFAULTS, STAMP) and (difference := _difference(name, found, description)):
            raise ValueError(
                f"{place} keeps another fit: its {difference}; name another folder for checkpoints"
            )
    was, (called, stamp) = found.get(STAMP), description.get(STAMP, ("", ""))
    if stamp and isinstance(was, list) and was[1:] not in ([stamp], [""]):
        warnings.warn(
            f"{called} is written anew since {place} was begun; the rows that were compared are the"
            " same, and the fit goes on: if others differ, name another folder for checkpoints",
            stacklevel=2,
        )
    return found


def no_checkpoints(place: str) -> ValueError:
    return ValueError(
        f"{place} holds no {DESCRIPTION}, so it is no folder of checkpoints: name another"
    )


def damaged(state: str, reason: str) -> ValueError:
    return ValueError(
        f"the checkpoint {state} is damaged ({one_line(ValueError(reason))}): delete that folder to"
        " go on from the one before, or name another folder for checkpoints"
    )


def check_shapes(found: Any, wanted: Any) -> None:
    """Raises ValueError unless arrays that were saved are as wanted, before memory is taken."""
    found, wanted = _described(found), _described(wanted)
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(f"{name} is {found.get(name)}, not {wanted.get(name)}")


def by_name(tree: Any) -> dict[str, Any]:
    """The arrays of a tree."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "…"


def _described(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each array, by its name."""
    return {name: (tuple(leaf.shape), str(leaf.dtype)) for name, leaf in by_name(tree).items()}


def _difference(name: str, found: dict[str, Any], here: dict[str, Any]) -> str | None:
    """Why an entry of two descriptions says that they are of two fits; None where it does not."""
    was: Any = found.get(name)
    now = here[name]
    said = f"{name} is {short(was)}, and here it is {short(now)}"
    try:
        if name == SKETCH:
            return None if np.allclose(was, now, rtol=0, atol=TOLERANCE) else said
        if name == STAGES:
            pairs = zip(was, now, strict=False)
            differing = (
                f"stage is {short(a)}, and here it is {short(b)}" for a, b in pairs if a != b
            )
            return next(differing, None)
        if name == SOLVER:
            was = here[DEFAULTS] | was
            differing = (
                f"{key} is {short(was.get(key))}, and here it is {short(value)}"
                for key, value in now.items()
                if was.get(key) != value
            )
            return next(differing, None)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return said
    return None if was == now else said


def _plain(value: Any) -> Any:
    """What JSON has no word for: numbers of NumPy and JAX, and the rest as it is written."""
    return value.item() if hasattr(value, "item") and np.ndim(value) == 0 else repr(value)
