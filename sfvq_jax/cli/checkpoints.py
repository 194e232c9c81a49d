"""`inspect` and `convert`: checkpoints of other projects, told about and brought into our form."""

import argparse
import json

import ports
from sfvq_jax.cli.common import add_examples, add_output, model_folder, shown

CONVERTED_MARKER = "config.json"  # in every folder that `convert` writes


def add_inspect(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_inspect)
    add_examples(command, "inspect network-snapshot.pkl", "inspect ffhq/", "inspect fashion_mnist")
    command.add_argument(
        "checkpoint", help="upstream's file or folder, a converted folder, or a bundled model"
    )
    _add_config(command)


def add_convert(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_convert)
    add_examples(
        command,
        "convert network-snapshot.pkl ffhq/",
        "convert G_ema.pth biggan/ --config config.json --verify outputs.npz",
    )
    command.add_argument("checkpoint", help="a file such as network.pkl, or a folder with one")
    add_output(command, "folder to write", "output", marker=CONVERTED_MARKER)
    command.add_argument("--overwrite", action="store_true", help="replace the output")
    command.add_argument("--verify", help="an .npz of upstream's outputs to compare with first")
    _add_config(command)


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", help="a BigGAN's settings (config.json beside it)")
    command.add_argument("--network", help="which of the file's generators, such as G (averaged)")


def run_inspect(options: argparse.Namespace) -> None:
    found = ports.inspect(model_folder(options.checkpoint), options.config, options.network)
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
            print(f"{name:<23} {shown(text, 200)}")


def run_convert(options: argparse.Namespace) -> None:
    differences = ports.convert(
        options.checkpoint,
        options.output,
        config=options.config,
        network=options.network,
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
