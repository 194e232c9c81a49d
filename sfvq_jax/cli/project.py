"""`project`: where every latent of a file lies on a curve."""

import argparse
import sys

import jax
from tqdm import tqdm

from sfvq_jax.cli.common import add_examples, add_output, check_outputs
from sfvq_jax.cli.joining import add_distributed_options, together
from sfvq_jax.cli.models import CURVE_HELP, LATENTS_HELP, add_scale, is_of_latents
from sfvq_jax.io.curve_file import load_curve
from sfvq_jax.io.objects import ZARR
from sfvq_jax.io.positions import write_positions
from sfvq_jax.processes import in_every_process
from sfvq_jax.sources import HostSource


def add_project(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_project)
    add_output(
        command,
        "position and squared distance of each latent, in order: an .npy [N, 2] of float64, or a"
        " .zarr (v3) of the same; a path, or a URI such as s3://bucket/positions.zarr",
        endings=(".npy",),
        marker=ZARR,
    )
    add_examples(
        command,
        "project latents.npy curve.npz -o positions.npy",
        "project latents.npy curve.npz -o s3://bucket/positions.zarr",
    )
    command.add_argument("source", help=LATENTS_HELP)
    command.add_argument("curve", help=CURVE_HELP)
    add_scale(command)
    add_distributed_options(command)


def run_project(options: argparse.Namespace) -> None:
    def opened():
        if jax.process_index() == 0 and options.distributed:
            check_outputs(options)
        if not is_of_latents(options.source):
            raise ValueError(f"{options.source} is no file of latents, whose order the output has")
        return HostSource(options.source, scale=options.scale), load_curve(options.curve)

    with together(options):
        source, record = in_every_process(opened)
        first = jax.process_index() == 0
        with tqdm(
            total=source.num_latents // jax.process_count(), unit=" latents", unit_scale=True,
            file=sys.stderr, disable=None if first else True,
        ) as bar:  # fmt: skip
            write_positions(
                options.output,
                record.curve,
                source,
                overwrite=options.overwrite,
                on_rows=bar.update,
            )
        if first:
            print(
                f"{options.output}: positions and squared distances of {source.num_latents} latents"
            )
