"""`convert`: a checkpoint of another project, brought into our form."""

import argparse

import ports
from sfvq_jax.cli.common import add_examples, add_output
from sfvq_jax.cli.inspect import CHECKPOINT_HELP, add_config

CONVERTED_MARKER = "config.json"  # in every folder that `convert` writes


def add_convert(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_convert)
    add_examples(
        command,
        "convert network-snapshot.pkl ffhq/",
        "convert G_ema.pth biggan/ --config config.json --verify outputs.npz",
    )
    command.add_argument("checkpoint", help=CHECKPOINT_HELP)
    add_output(command, "folder to write", "output", marker=CONVERTED_MARKER)
    command.add_argument("--overwrite", action="store_true", help="replace existing output")
    command.add_argument(
        "--verify", help="outputs of the original model (.npz), compared before anything is written"
    )
    add_config(command)


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
