"""`inspect`: tells what a checkpoint of another project is."""

import argparse
import json

import ports
from sfvq_jax.cli.common import add_examples, shown
from sfvq_jax.cli.models import model_folder

CHECKPOINT_HELP = "checkpoint of another project: a file such as network.pkl, or a folder with one"


def add_inspect(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_inspect)
    add_examples(command, "inspect network-snapshot.pkl", "inspect ffhq/", "inspect fashion_mnist")
    command.add_argument(
        "checkpoint",
        help=f"{CHECKPOINT_HELP}; a folder that `convert` wrote, or the name of a bundled model",
    )
    add_config(command)


def add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        help="settings of a BigGAN, a JSON file (default: config.json beside the checkpoint)",
    )
    command.add_argument(
        "--network",
        help="generator of the file, such as G (default: an averaged one, or else the first)",
    )


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
