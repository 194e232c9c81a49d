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

from sfvq_jax.interpret.attributes.network import CHANNELS, MEASURES, FittedFunction, ScorerNetwork
from sfvq_jax.interpret.attributes.scorer import Scorer
from sfvq_jax.io.output import new_file
from sfvq_jax.io.reading import Arrays, check_format, parse_json, reading
from sfvq_jax.short import short_repr

FORMAT_VERSION = 1
MOST_CHANNELS = 2**12


class Scorers(NamedTuple):
    """Two scorers from a file of `save_scorers`.

    Attributes:
      find: the scorer that finds directions.
      judge: the scorer that judges them.
      about: origin and quality of the scorers; JSON values.
    """

    find: Scorer
    judge: Scorer
    about: Mapping[str, Any]

    __repr__ = short_repr

    @property
    def kind(self) -> str:
        """Kind of the labels: classes, yes/no or numbers."""
        return _fitted(self.find).kind

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, one for each image; empty for other kinds of labels."""
        return self.judge.names if self.kind == "classes" else ()

    @property
    def features(self) -> Callable[[jax.Array], jax.Array]:
        """Function of images to features [N, F]: the penultimate layer of the judge."""
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

    Args:
      path: path or URI of the file.
      find: the scorer that finds directions, from `fit_scorer`.
      judge: the scorer that judges them, from `fit_scorer`.
      about: origin and quality of the scorers; JSON values.
      overwrite: replace an existing file.

    Raises:
      FileExistsError: the file exists, and `overwrite` is false.
      ValueError: a scorer that is not from `fit_scorer`.

    >>> import tempfile
    >>> import ports
    >>> from sfvq_jax.interpret import load_scorers, save_scorers
    >>> scorers = load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_scorers(f"{folder}/s.npz", scorers.find, scorers.judge, about={"by": "me"})
    ...     load_scorers(f"{folder}/s.npz").about
    {'by': 'me'}
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
    """Reads two scorers that `save_scorers` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      OSError: the file cannot be opened.
      ValueError: the file has no scorers, is damaged or has a newer format.

    >>> import ports
    >>> from sfvq_jax.interpret import load_scorers
    >>> scorers = load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    >>> scorers.kind, scorers.judge.names[:3]
    ('classes', ('T-shirt', 'trouser', 'pullover'))
    """
    with reading(path, "file of scorers") as file:
        stored = Arrays(file)
        text = stored.text("config")  # first: curves have formats of their own
        check_format(stored.integer("format_version"), FORMAT_VERSION)
        config = parse_json(text)
        find, judge = (_build(role, config, stored) for role in ("find", "judge"))
        return Scorers(find, judge, _field(config, "about", dict))


def _flatten(role: str, params: Any, offset: Any, scale: Any) -> dict[str, Any]:
    """The leaves by their names in the file."""
    tree = {role: {"params": params, "offset": offset, "scale": scale}}
    return flax.traverse_util.flatten_dict(tree, sep="/")


def _build(role: str, config: dict[str, Any], stored: Arrays) -> Scorer:
    """A scorer out of a file; ValueError where config and arrays do not belong together."""
    config = _field(config, role, dict)
    names, kind = _field(config, "names", list), _field(config, "kind", str)
    side, channels = _field(config, "side", int), _field(config, "channels", int)
    if kind not in MEASURES or side not in CHANNELS or not 1 <= channels <= MOST_CHANNELS:
        raise ValueError(f"it has a scorer of kind {kind}, side {side} and channels {channels}")
    if not names or not all(type(name) is str for name in names):
        raise ValueError("the names in it are no texts")
    per_name = jax.ShapeDtypeStruct((len(names),), np.float32)
    blank = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
    network = ScorerNetwork(side, len(names))
    params = jax.eval_shape(network.init, jax.random.key(0), blank)["params"]
    found = {}
    for name, leaf in _flatten(role, params, per_name, per_name).items():
        array = stored.array(name, leaf.shape, "f")
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise ValueError(f"its {name} are not all finite numbers of float32")
        found[name] = jnp.asarray(array)
    leaves = flax.traverse_util.unflatten_dict(found, sep="/")[role]
    function = FittedFunction(**leaves, kind=kind, side=side, channels=channels)
    return Scorer.of(function, names, function.threshold)


def _field(config: dict[str, Any], name: str, kind: type) -> Any:
    value = config.get(name)
    if type(value) is not kind:
        raise ValueError(f"its {name} is missing, or not of type {kind.__name__}")
    return value
