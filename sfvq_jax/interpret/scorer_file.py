"""Two fitted scorers on disk: one .npz, no pickle."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.fitted_scorer import (
    CHANNELS,
    MEASURES,
    FittedFunction,
    ScorerNetwork,
)
from sfvq_jax.io.output import check_format, new_file

FORMAT_VERSION = 1


class Scorers(NamedTuple):
    """What `save_scorers` keeps.

    Attributes:
      find: to find directions with.
      judge: to judge what `find` has found.
      about: where they come from, how good they are; JSON values.
    """

    find: Scorer
    judge: Scorer
    about: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Of the labels: classes, yes/no or numbers."""
        return _fitted(self.find).kind

    @property
    def classes(self) -> tuple[str, ...]:
        """Attributes of which each image has one; none of other kinds."""
        return self.judge.names if self.kind == "classes" else ()

    @property
    def features(self) -> Callable[[jax.Array], jax.Array]:
        """Images -> [N, F]: the last layer but one of the scorer that judges."""
        return _fitted(self.judge).features


def _fitted(scorer: Scorer) -> FittedFunction:
    assert isinstance(scorer.function, FittedFunction)
    return scorer.function


def save_scorers(
    path: str | Path,
    find: Scorer,
    judge: Scorer,
    *,
    about: Mapping[str, Any] = MappingProxyType({}),
    overwrite: bool = False,
) -> None:
    """Writes two fitted scorers into one .npz, without pickle.

    Raises:
      FileExistsError: there is a file and `overwrite` is false.
      ValueError: a scorer that `fit_scorer` has not made.
    """
    config: dict[str, Any] = {"about": dict(about)}
    arrays = {"format_version": np.array(FORMAT_VERSION)}
    for role, scorer in {"find": find, "judge": judge}.items():
        function = scorer.function
        if not isinstance(function, FittedFunction):
            raise ValueError(f"{role} is not a fitted scorer: only those can be saved")
        config[role] = {
            "names": scorer.names,
            "kind": function.kind,
            "side": function.side,
            "channels": function.channels,
        }
        leaves = _flatten(role, function.params, function.offset, function.scale)
        arrays |= {name: np.asarray(leaf) for name, leaf in leaves.items()}
    arrays["config"] = np.array(json.dumps(config))
    with new_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_scorers(path: str | Path) -> Scorers:
    """Reads what `save_scorers` wrote.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: no scorers, a damaged file, or one of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of scorers {path}")
    try:
        with open(path, "rb") as file:
            arrays = dict(np.load(file, allow_pickle=False))
        version = int(arrays["format_version"])
        config = json.loads(str(arrays["config"]))
    except Exception as error:  # damaged bytes make zipfile and NumPy raise errors of many kinds
        raise ValueError(f"{path} is no file of scorers, or a damaged one ({error})") from error
    check_format(path, version, FORMAT_VERSION)
    try:
        find, judge = (_build(role, config[role], arrays) for role in ("find", "judge"))
        return Scorers(find, judge, dict(config["about"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the scorers in {path} are damaged ({error})") from error


def _flatten(role: str, params: Any, offset: Any, scale: Any) -> dict[str, Any]:
    """The leaves by their names in the file."""
    tree = {role: {"params": params, "offset": offset, "scale": scale}}
    return flax.traverse_util.flatten_dict(tree, sep="/")


def _build(role: str, config: dict, arrays: dict[str, np.ndarray]) -> Scorer:
    """A scorer out of a file; ValueError where config and arrays do not belong together."""
    names, kind, side, channels = (config[k] for k in ("names", "kind", "side", "channels"))
    if kind not in MEASURES or side not in CHANNELS or type(channels) is not int or channels < 1:
        raise ValueError(f"unknown kind {kind!r}, side {side!r} or channels {channels!r}")
    per_name = jax.ShapeDtypeStruct((len(names),), np.float32)
    blank = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
    network = ScorerNetwork(side, len(names))
    params = jax.eval_shape(network.init, jax.random.key(0), blank)["params"]
    found = {}
    for name, leaf in _flatten(role, params, per_name, per_name).items():
        array = arrays[name]
        if array.shape != leaf.shape or array.dtype != np.float32:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {leaf.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has numbers that are not finite")
        found[name] = jnp.asarray(array)
    leaves = flax.traverse_util.unflatten_dict(found, sep="/")[role]
    return Scorer.of(FittedFunction(**leaves, kind=kind, side=side, channels=channels), names)
