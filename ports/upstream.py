"""Finds out what an upstream checkpoint is, and has it converted."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ports import pickles
from ports.biggan import convert_ajbrock, convert_huggingface
from ports.checkpoint import Converted, is_converted
from ports.pickles import CheckpointError
from ports.stylegan2 import convert_nvidia, convert_rosinality, convert_tensorflow
from sfvq_jax.io.reading import one_line, parse_json

# what a folder's generator is called, the best first
_FILES = ("pytorch_model.bin", "G_ema.pth", "G.pth")
_SUFFIXES = (".pkl", ".pt", ".pth", ".bin")


def read(path: str | Path, config: str | Path | None = None) -> Converted:
    """The generator in an upstream checkpoint, whatever it is.

    Args:
      path: a file, or a folder with one.
      config: the JSON file with the settings of a BigGAN; by default the one beside the checkpoint.

    Returns:
      Its `source` has the file's name and SHA-256, and of a BigGAN its settings.

    Raises:
      CheckpointError: where nothing is there, or nothing that can be converted.
    """
    path = Path(path)
    if is_converted(path):
        raise CheckpointError(f"{path} is converted already; it can be loaded as it is")
    file = _find_file(path) if path.is_dir() else path
    content = pickles.read(file)
    try:
        converter = next((c for c in _CONVERTERS if c.recognises(content)), None)
        if converter is None:
            raise CheckpointError(f"{_kind(content)}; no generator that is known here")
        if not converter.needs_settings:
            if config is not None:
                raise CheckpointError("this checkpoint needs no config: leave it out")
            converted = converter.convert(content)
            settings = {}
        else:
            values = _read_settings(file, config)
            converted = converter.convert(content, values)
            settings = {"config": values}
    except CheckpointError as error:
        raise CheckpointError(f"{file.name}: {error}") from error
    except RecursionError as error:
        raise CheckpointError(f"{file.name} is nested too deeply to be a checkpoint") from error
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    source = {"file": file.name, "sha256": digest} | converted.source | settings
    return converted._replace(source=source)


class _Converter(NamedTuple):
    recognises: Callable[[Any], bool]
    convert: Callable[..., Converted]
    needs_settings: bool = False


_CONVERTERS = (
    _Converter(convert_nvidia.recognises, convert_nvidia.convert),
    _Converter(convert_tensorflow.recognises, convert_tensorflow.convert),
    _Converter(convert_rosinality.recognises, convert_rosinality.convert),
    _Converter(convert_huggingface.recognises, convert_huggingface.convert, True),
    _Converter(convert_ajbrock.recognises, convert_ajbrock.convert, True),
)


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


def _read_settings(file: Path, config: str | Path | None) -> dict:
    """A BigGAN's settings: as JSON, or as BigGAN-PyTorch keeps them, in its `state_dict.pth`."""
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
        content = pickles.read(training)
        settings = content.get("config") if isinstance(content, dict) else None
        if isinstance(settings, dict):  # its activations are PyTorch modules
            settings = {
                k: v for k, v in settings.items() if isinstance(v, bool | int | float | str)
            }
    else:
        raise CheckpointError(
            f"a BigGAN is described by its config, and {own} is not there: put it beside the"
            " checkpoint or name it with --config (config=)"
        )
    if not isinstance(settings, dict):
        raise CheckpointError(f"{own.name} holds no settings by name")
    return settings


def _kind(content: Any) -> str:
    """What a file holds, for somebody who expected something else."""
    if not isinstance(content, dict):
        return f"it holds one {type(content).__name__}"
    names = [name[:40] for name in content if isinstance(name, str)][:4]
    return f"it holds {len(content)} entries such as {', '.join(names)}"
