"""The generator that a command is given: a folder, a bundled one, or an object of the user's."""

import argparse
import functools
import importlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what takes long to import is imported where it is used
    import ports
    from sfvq_jax import CurveRecord, LatentModel
    from sfvq_jax.interpret import DirectionRecord

MODEL_HELP = (
    "generator: a folder that `convert` wrote, a bundled one (fashion_mnist,"
    " fashion_mnist_biggan), or your own model as file.py:NAME or module:NAME"
)
LATENTS_HELP = (
    "latents [N, D]: a file (.npy, .zarr, .safetensors#NAME, …), a folder of files, or a pattern"
    " such as 'embs/*.npy'; on a disk, gs://, s3:// or https://"
)
CURVE_HELP = "curve (.npz) that `fit` wrote, or codewords [K, D] in an .npy"
OBJECT = re.compile(r"(.+\.py|[A-Za-z_]\w*(?:\.\w+)*):([A-Za-z_]\w*(?:\.\w+)*)")
NEEDED = ("latent_dim", "num_layers", "sample", "render")


def add_model(command: argparse.ArgumentParser, *, arrays: bool = False) -> None:
    command.add_argument("model", help=MODEL_HELP + (f"; or {LATENTS_HELP}" if arrays else ""))
    if arrays:
        add_scale(command)


def add_scale(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--scale",
        type=float,
        help="factor applied to stored latents; required for integer latents",
    )


def add_model_and_curve(command: argparse.ArgumentParser, *, arrays: bool = False) -> None:
    add_model(command, arrays=arrays)
    command.add_argument("curve", help=CURVE_HELP)


def add_space_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--space",
        help="latent space: w (the default) or z of a StyleGAN2, linear (the default) or z of a"
        " BigGAN",
    )
    command.add_argument(
        "--label", type=int, help="class that z is conditioned on, as a number; selects --space z"
    )
    command.add_argument(
        "--truncation",
        type=float,
        help="truncation of z, or of a BigGAN's latents; selects --space z of a StyleGAN2 (default:"
        " none)",
    )


def load_model(name: str, options: argparse.Namespace) -> "LatentModel":
    """A generator in the latent space that the options name."""
    import ports

    model = load_generator(name)
    if not isinstance(model, ports.StyleGAN2 | ports.BigGAN):
        check_no_space(name, options)
        return model
    default = "linear" if isinstance(model, ports.BigGAN) and options.label is None else "z"
    if isinstance(model, ports.StyleGAN2) and (options.label, options.truncation) == (None, None):
        default = "w"
    return model.space(options.space or default, options.label, options.truncation)


def is_of_latents(name: str) -> bool:
    """Whether a name is that of latents, or of what their reader has to say something about."""
    from sfvq_jax.rows.opening import holds_rows

    return holds_rows(name) or (Path(name).is_file() and not name.endswith(".py"))


def check_no_space(name: str, options: argparse.Namespace) -> None:
    """Raises ValueError where the options choose a space of what has only one."""
    if (options.space, options.label, options.truncation) != (None, None, None):
        raise ValueError(f"{name} has one latent space: leave out --space, --label, --truncation")


def load_generator(name: str) -> "ports.StyleGAN2 | ports.BigGAN | LatentModel":
    """A converted generator's folder, the name of a bundled one, or that of a user's object."""
    import ports

    if (found := OBJECT.fullmatch(name)) and not Path(name).exists():
        return _model_of(name, *found.groups())
    if name.endswith(".py"):
        raise ValueError(f"{name}: name the model that is in it, {name}:NAME")
    model = ports.load(model_folder(name))
    if isinstance(model, ports.Classifier):
        raise ValueError(f"{name} is a classifier and no generator")
    return model


def _model_of(name: str, place: str, path: str) -> "ports.StyleGAN2 | ports.BigGAN | LatentModel":
    """What an object is or, as a function or class, gives when it is called without arguments."""
    import ports

    found: Any = _imported(place)
    for part in path.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{place} has no {path}: MODEL is {place}:NAME, of a name in it")
        found = getattr(found, part)
    if isinstance(found, type) or (_lacks(found) and callable(found)):
        found = _called(name, found)
    if not isinstance(found, ports.BigGAN) and (lacking := _lacks(found)):
        raise ValueError(
            f"{name} is a {type(found).__name__} without {', '.join(lacking)}: a model has"
            f" {', '.join(NEEDED[:-1])} and {NEEDED[-1]}, see docs/how-to/your_model.md"
        )
    return found


def _lacks(model: Any) -> list[str]:
    return [name for name in NEEDED if not hasattr(model, name)]


def _imported(place: str) -> ModuleType:
    """A module, or a file that is imported as one of its name; both see what lies beside them."""
    is_file = place.endswith(".py")
    if is_file and not Path(place).is_file():
        raise FileNotFoundError(f"{place}: there is no such file")
    folder = str(Path(place).resolve().parent if is_file else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if not is_file:
        return _called(place, functools.partial(importlib.import_module, place))
    path = str(Path(place).resolve())
    module_name = Path(place).stem
    loaded = sys.modules.get(module_name)
    if loaded is not None and getattr(loaded, "__file__", None) != path:
        module_name = f"model in {path}"  # a file may be called jax.py
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # as dataclasses and pickles look for it there
    _called(place, functools.partial(spec.loader.exec_module, module))
    return module


def _called(name: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        raise ValueError(f"{name} ends in {type(error).__name__}: {error}") from error


def load_both(options: argparse.Namespace) -> "tuple[LatentModel, CurveRecord]":
    """The model and the curve of a command, which belong together."""
    from sfvq_jax import load_curve

    record = load_curve(options.curve)
    return load_for(options.model, [record]), record


def load_for(name: str, records: "Sequence[CurveRecord | DirectionRecord]") -> "LatentModel":
    """The model that curves or directions belong to, in their latent space."""
    import ports
    from sfvq_jax import check_belongs

    model = load_generator(name)
    if isinstance(model, ports.StyleGAN2 | ports.BigGAN):
        model = model.space_named(records[0].space)
    for record in records:
        check_belongs(record, model)
        if not record.model_hash:
            what = "curve" if hasattr(record, "curve") else "direction"
            note = (
                f"the {what} does not say which model it is of: it is taken for one of {name},"
                f" space {getattr(model, 'latent_space', 'without a name')}"
            )
            if not getattr(model, "model_hash", ""):
                note += "; a model with latent_space and model_hash has this checked"
            warnings.warn(note, stacklevel=2)
    return model


def model_folder(name: str) -> str | Path:
    """The folder of a bundled model's name; any other name as it is."""
    import ports

    return ports.bundled(name) if is_bundled(name) else name


def is_bundled(name: str) -> bool:
    import ports

    return not Path(name).exists() and (ports.BUNDLED / name).is_dir()
