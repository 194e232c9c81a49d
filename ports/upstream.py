"""Finds the generator in an upstream checkpoint, and has it converted."""

import hashlib
import re
from pathlib import Path
from typing import Any

from ports import containers
from ports.checkpoint import Converted, is_converted
from ports.errors import CheckpointError, quoted
from ports.formats import FORMATS
from ports.limits import names_of_records
from ports.records import PersistentObject, Record
from ports.state_dict import Candidate, Format, candidates
from sfvq_jax.io.reading import one_line, parse_json

# what a folder's generator is called, the best first
_FILES = ("pytorch_model.bin", "G_ema.pth", "G.pth")
_SUFFIXES = (".pkl", ".pt", ".pth", ".bin", ".ckpt", ".safetensors")


def read(
    path: str | Path, config: str | Path | None = None, network: str | None = None
) -> Converted:
    """The generator in an upstream checkpoint, whatever it is.

    Args:
      path: a file, or a folder with one.
      config: the JSON file with the settings of a BigGAN; by default the one beside the checkpoint.
      network: which of the file's generators, such as 'G'; by default an averaged one, or else the
        first.

    Returns:
      Its `source` has the file's name and SHA-256, where in the file the generator was, the classes
      of objects that were kept as records, and of a BigGAN its settings.

    Raises:
      CheckpointError: where nothing is there, or nothing that can be converted.
    """
    path = Path(path)
    if is_converted(path):
        raise CheckpointError(f"{path} is converted already; it can be loaded as it is")
    file = _find_file(path) if path.is_dir() else path
    digest = hashlib.sha256()
    content = containers.read(file, digest)
    try:
        inert = names_of_records(content)
        format, candidate = choose(content, network)
        del content  # what is beside the generator takes as much memory
        if format.settings:
            settings = _read_settings(file, config)
            converted = format.convert(candidate, settings)
            told: dict[str, Any] = {} if settings is None else {"config": settings}
        else:
            if config is not None:
                raise CheckpointError("this checkpoint needs no config: leave it out")
            converted, told = format.convert(candidate), {}
    except CheckpointError as error:
        raise CheckpointError(f"{file.name}: {error}") from error
    except RecursionError as error:
        raise CheckpointError(f"{file.name} is nested too deeply to be a checkpoint") from error
    if where := ".".join(candidate.path):
        untold = candidate.plain and network is None
        told["network"] = quoted(where) + ", for there is no averaged one" * untold
    if inert:
        told["inert objects"] = inert
    source = {"file": file.name, "sha256": digest.hexdigest()} | converted.source | told
    return converted._replace(source=source)


def choose(content: Any, network: str | None = None) -> tuple[Format, Candidate]:
    """The generator in what a file holds, and its format; `network` as in `read`."""
    found = list(candidates(content, FORMATS))
    if not found:
        raise CheckpointError(f"{_kind(content)}; no generator that is known here")
    if network is None:
        return found[0]
    for format, candidate in found:
        if network in (*candidate.path, ".".join(candidate.path)):
            return format, candidate
    names = ", ".join(quoted(".".join(c.path), 40) or "one without a name" for _, c in found[:8])
    raise CheckpointError(f"it has no generator {quoted(network)}; there is {names}")


def _find_file(folder: Path) -> Path:
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    found = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)
    if len(found) == 1:
        return found[0]
    names = ", ".join(file.name for file in found[:8])
    raise CheckpointError(
        f"{folder} holds {names or 'no checkpoint'}; name the file that holds the generator"
    )


def _read_settings(file: Path, config: str | Path | None) -> dict | None:
    """A BigGAN's settings: as JSON, or as BigGAN-PyTorch keeps them, in its `state_dict.pth`.

    None where there are none.
    """
    # pytorch-pretrained-BigGAN's downloads are called NAME-pytorch_model.bin and NAME-config.json
    own = file.with_name(file.name.removesuffix("pytorch_model.bin") + "config.json")
    training = file.with_name(re.sub(r"^G(_ema)?", "state_dict", file.name))
    if config is not None:
        own = Path(config)
    elif not own.is_file():
        own = file.with_name("config.json")
    if own.is_file():
        try:
            settings = parse_json(own.read_bytes())
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{own.name} is no JSON ({one_line(error)})") from error
    elif config is None and training != file and training.is_file():
        content = containers.read(training)
        settings = content.get("config") if isinstance(content, dict) else None
        if isinstance(settings, dict):  # its activations are PyTorch modules
            settings = {
                k: v for k, v in settings.items() if isinstance(v, bool | int | float | str)
            }
    else:
        return None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{own.name} holds no settings by name")
    return settings


def _kind(content: Any) -> str:
    """What a file holds, for somebody who expected something else."""
    if isinstance(content, PersistentObject | Record):
        return f"it holds one object of the class {quoted(content.class_name)}"
    if not isinstance(content, dict):
        return f"it holds one {type(content).__name__}"
    names = [quoted(name, 40) for name in content if isinstance(name, str)][:4]
    return f"it holds {len(content)} entries such as {', '.join(names)}"
