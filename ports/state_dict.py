"""State dicts in what a file holds: where generators lie, and their arrays, each taken once."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ports.checkpoint import Converted
from ports.errors import CheckpointError, quoted
from ports.records import PersistentObject, Record, TensorFlowNetwork

_DEEPEST = 3  # levels of dicts around a generator
_MOST_PREFIXES = 100
# parts of names that wrappers put anywhere: DataParallel, torch.compile, FSDP, checkpointing
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# parts of the names of generators whose weights are averaged, of others, of networks that are none
_AVERAGED = {"ema", "gema", "gs", "smooth", "avg", "average", "averaged", "running", "swa"}
_PLAIN = {"g", "gen", "generator", "netg"}
_OTHERS = {"d", "netd", "discriminator", "dema"}


class Candidate(NamedTuple):
    """What may be a generator.

    Attributes:
      path: where it lies in the file, such as ("state_dict", "decoder").
      tensors: its arrays by name, without prefixes of wrappers.
      network: the pickled network, where it is not its tensors alone.
      beside: arrays by name in the dicts around it, of which the innermost counts.
    """

    path: tuple[str, ...]
    tensors: dict[str, np.ndarray]
    network: PersistentObject | TensorFlowNetwork | Record | None
    beside: dict[str, np.ndarray]

    @property
    def averaged(self) -> bool:
        return any(_AVERAGED & _parts(name) for name in self.path)

    @property
    def plain(self) -> bool:
        """Whether its name says that it is a generator, and not an averaged one."""
        return not self.averaged and any(_PLAIN & _parts(name) for name in self.path)


class Format(NamedTuple):
    """An upstream project's way to keep a generator.

    Attributes:
      marks: names that only this project's generators all have.
      convert: a candidate -> the generator; with `settings` also what its config says, a dict or
        None where there is no config.
      settings: whether there is a config beside the file.
      network: the kind of pickled network that it is; None for state dicts.
    """

    marks: tuple[str, ...]
    convert: Callable[..., Converted]
    settings: bool = False
    network: type | None = None


def candidates(content: Any, formats: Iterable[Format]) -> Iterator[tuple[Format, Candidate]]:
    """The generators in what a file holds, averaged ones first, each with its format.

    They lie at most three dicts deep, and their names may all begin with the same words.
    """
    formats = tuple(formats)
    found = [
        (format, candidate)
        for node in _walk(content, (), {})
        for format in formats
        for candidate in _under_prefixes(node, format)
    ]
    yield from sorted(found, key=lambda pair: not pair[1].averaged)


def _walk(node: Any, path: tuple[str, ...], beside: dict[str, np.ndarray]) -> Iterator[Candidate]:
    """Every state dict and every network, in the order of the file."""
    if isinstance(node, TensorFlowNetwork):
        yield Candidate(path, {}, node, beside)
    elif (modules := _module_state(node)) is not None:
        yield Candidate(path, dict(_module_tensors(modules, "")), node, beside)
    elif isinstance(node, dict):
        tensors = {
            name: value
            for name, value in node.items()
            if isinstance(name, str) and isinstance(value, np.ndarray)
        }
        if tensors:
            yield Candidate(path, _unwrapped(tensors), None, beside | tensors)
        if len(path) < _DEEPEST:
            for name, child in node.items():
                if isinstance(name, str) and not (_OTHERS & _parts(name)):
                    yield from _walk(child, (*path, name), beside | tensors)
    elif isinstance(node, list | tuple) and not path:
        names = ("G", "D", "Gs") if len(node) == 3 else map(str, range(len(node)))
        for name, child in zip(names, node, strict=False):
            if name != "D":
                yield from _walk(child, (name,), {})


def _parts(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def _module_state(node: Any) -> dict | None:
    """The attributes of a pickled `torch.nn.Module` of any class."""
    state = node.state if isinstance(node, PersistentObject | Record) else None
    has_all = isinstance(state, dict) and all(
        isinstance(state.get(kind), dict) for kind in ("_parameters", "_buffers", "_modules")
    )
    return state if has_all else None


def _module_tensors(state: dict, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for kind in ("_parameters", "_buffers"):
        for name, value in state[kind].items():
            if isinstance(name, str) and isinstance(value, np.ndarray):
                yield prefix + name, value
    for name, child in state["_modules"].items():
        if isinstance(name, str) and (inner := _module_state(child)) is not None:
            yield from _module_tensors(inner, f"{prefix}{name}.")


def _unwrapped(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    unwrapped: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        own = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if own in unwrapped:
            raise CheckpointError(
                f"{quoted(own)} is there twice, with and without a wrapper's prefix; keep one"
            )
        unwrapped[own] = value
    return unwrapped


def _under_prefixes(node: Candidate, format: Format) -> Iterator[Candidate]:
    """The parts of a state dict whose names go on as the format's do after the same prefix."""
    if format.network is not None:
        if isinstance(node.network, format.network):
            yield node
        return
    first = format.marks[0]
    prefixes = [name.removesuffix(first) for name in node.tensors if name.endswith(first)]
    if len(prefixes) > _MOST_PREFIXES:
        raise CheckpointError(f"it holds {len(prefixes)} generators; expected one or a few")
    for prefix in prefixes:
        parts = tuple(prefix.split(".")[:-1])
        ends = prefix[-1:] in ("", ".")
        if not ends or any(_OTHERS & _parts(part) for part in parts):
            continue
        if all(prefix + mark in node.tensors for mark in format.marks):
            tensors = {
                name.removeprefix(prefix): x
                for name, x in node.tensors.items()
                if name.startswith(prefix)
            }
            network = node.network
            for part in parts:
                state = _module_state(network)
                network = None if state is None else state["_modules"].get(part)
            yield Candidate((*node.path, *parts), tensors, network, node.beside)


class Tensors(dict[str, Any]):
    """Named arrays. Taking one removes it: what is left was not expected.

    Attributes:
      called: the names that upstream gives them, where those are others.
    """

    def __init__(
        self, tensors: Mapping[str, Any] | None = None, called: Mapping[str, str] | None = None
    ):
        super().__init__(tensors or {})
        self.called = called or {}

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of an array of `ndim` axes, none of them empty."""
        value, called = self._expect(name), self.called.get(name, name)
        if not isinstance(value, np.ndarray):
            raise CheckpointError(f"{called} is {type(value).__name__}, expected a tensor")
        if value.ndim != ndim or value.size == 0:
            raise CheckpointError(f"{called} has shape {value.shape}, expected {ndim} full axes")
        return value.shape

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Removes an array of this shape, and returns it in float32."""
        value = float32(self.called.get(name, name), self._expect(name), shape)
        del self[name]
        return value

    def expect_empty(self) -> None:
        for name in sorted(self):
            called = quoted(self.called.get(name, name))
            raise CheckpointError(f"{called} is there, which the architecture has not")

    def _expect(self, name: str) -> Any:
        if name not in self:
            layer = f"{name.rpartition('.')[0]}."
            near = [theirs for ours, theirs in self.called.items() if ours.startswith(layer)]
            beside = f" beside {near[0]}" if near else ""
            raise CheckpointError(f"{name} is missing{beside}, which the architecture needs")
        return self[name]


def renamed(
    tensors: Mapping[str, np.ndarray],
    rename: Callable[[str, np.ndarray], tuple[str, np.ndarray] | None],
) -> Tensors:
    """The arrays under other names and in another layout.

    Args:
      tensors: by the names of one project.
      rename: gives the name that the architecture has for it, and the array as it is there; None
        where it has none.
    """
    values: dict[str, np.ndarray] = {}
    called: dict[str, str] = {}
    for name, value in tensors.items():
        if not isinstance(value, np.ndarray):
            kind = type(value).__name__
            raise CheckpointError(f"{quoted(name)} is {kind}, expected a tensor")
        try:
            pair = rename(name, value)
        except (ValueError, IndexError) as error:  # of transposing or indexing it
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"{quoted(name)} has shape {value.shape}, expected other axes"
            ) from error
        if pair is not None:
            if pair[0] in values:
                raise CheckpointError(f"{quoted(name)} is the same as {quoted(called[pair[0]])}")
            values[pair[0]], called[pair[0]] = pair[1], quoted(name)
    return Tensors(values, called)


def float32(name: str, value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A copy in float32, of this shape if one is given.

    Raises:
      CheckpointError: where it is no array of floating-point numbers, or one is not finite.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise CheckpointError(f"{name} is {kind}, expected a tensor of floating-point numbers")
    if shape is not None and value.shape != shape:
        raise CheckpointError(f"{name} has shape {value.shape}, expected {shape}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
        value = np.array(value, np.float32, order="C", subok=False)
    if not np.isfinite(value).all():
        raise CheckpointError(f"{name} has values that are not finite")
    return value
