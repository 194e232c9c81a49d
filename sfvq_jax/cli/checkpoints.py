"""`inspect` and `convert`: checkpoints of other projects, told about and brought into our form."""

import argparse
import contextlib
import json
import signal
from collections.abc import Iterator

import ports
from sfvq_jax.cli.common import AddCommand


def add_checkpoint_commands(add: AddCommand) -> None:
    inspect = add("inspect", run_inspect, "tells what a checkpoint is")
    inspect.add_argument("checkpoint", help="upstream's file or folder, or a converted folder")

    convert = add("convert", run_convert, "StyleGAN2 or BigGAN of an upstream project -> our form")
    convert.add_argument("checkpoint", help=".pkl, .pt, .pth or .bin, or a folder with one")
    convert.add_argument("output", help="folder to write")
    convert.add_argument("--overwrite", action="store_true", help="replace the output")
    convert.add_argument("--verify", help="an .npz of upstream's outputs to compare with first")
    for command in (inspect, convert):
        command.add_argument("--config", help="a BigGAN's settings (config.json beside it)")


def run_inspect(options: argparse.Namespace) -> None:
    found = ports.inspect(options.checkpoint, options.config)
    rows = {
        "format": found.format,
        "architecture": found.architecture,
        "image size": "x".join(str(side) for side in found.image_shape),
        "classes": str(found.num_classes),
        "parameters": f"{found.num_parameters:,}",
        "latent spaces": ", ".join(f"{name} [{d}]" for name, d in found.latent_spaces.items()),
        "hash": found.model_hash,
    }
    rows |= {name: json.dumps(value) for name, value in found.source.items()}
    rows |= {f"converted with {name}": version for name, version in found.versions.items()}
    rows |= {
        f"layer {i}": f"{resolution}x{resolution}  {name}"
        for i, (name, resolution) in enumerate(found.layers)
    }
    for name, text in rows.items():
        if text:  # a classifier has neither images nor latent spaces
            print(f"{name:<23} {text}")


def run_convert(options: argparse.Namespace) -> None:
    with _terminable():
        differences = ports.convert(
            options.checkpoint,
            options.output,
            config=options.config,
            verify=options.verify,
            overwrite=options.overwrite,
        )
    found = ports.inspect(options.output)
    print(
        f"{options.output}: {found.architecture} from {found.format},"
        f" {'x'.join(map(str, found.image_shape))}, {found.num_classes} classes,"
        f" {found.num_parameters:,} parameters"
    )
    for name, largest, relative in differences:
        print(f"{name}: differs by at most {largest:.2g}, {relative:.2g} of the largest value")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM an exception, so that what was begun is removed as after Control-C."""

    def stop(number, frame) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
