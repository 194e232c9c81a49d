"""`adopt`: directions that other projects found, as files that `edit` reads."""

import argparse
import json
import re
import warnings
from pathlib import Path
from typing import Any

import jax

from ports import containers
from sfvq_jax.cli.common import (
    DEVIATION_SAMPLES,
    add_examples,
    add_output,
    layer_range,
    shown,
    slug,
    table,
)
from sfvq_jax.cli.directions import DIRECTIONS_MARKER
from sfvq_jax.cli.models import add_model, add_space_options, load_model
from sfvq_jax.interpret import import_directions, save_direction
from sfvq_jax.io.output import new_folder
from sfvq_jax.io.reading import Arrays, reading


def add_adopt(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_adopt)
    add_output(command, "folder for the direction files (.json)", marker=DIRECTIONS_MARKER)
    add_examples(
        command,
        "adopt ffhq/ stylegan_ffhq_age_w_boundary.npy --layers 0-7 -o theirs/",
        "adopt ffhq/ ffhq-red_hair-style-comp10.pkl ffhq-smile-style-comp46.pkl -o theirs/",
        "adopt ffhq/ stylegan2-ffhq_style_ipca_c80_n1000000_w.npz --count 20 -o theirs/",
    )
    add_model(command)
    command.add_argument(
        "files",
        nargs="+",
        help="directions of another project: an .npy of vectors [D] or [K, D] (InterFaceGAN, SeFa),"
        " an .npz or an edit's .pkl of GANSpace, or LatentCLR's .pt",
    )
    add_space_options(command)
    command.add_argument(
        "--layers",
        type=layer_range,
        help="layers to change, first-last, both included (default: as the file says, or all)",
    )
    command.add_argument(
        "--count",
        type=int,
        default=10,
        help="largest number of directions from a file, the first ones (default: %(default)s)",
    )


def run_adopt(options: argparse.Namespace) -> None:
    if options.count < 1:
        raise ValueError(f"--count is {options.count}; at least one direction is taken")
    model = load_model(options.model, options)
    latents = model.sample(jax.random.key(0), DEVIATION_SAMPLES)
    records, origins, left_out = [], [], []
    for file in map(Path, options.files):
        content = _content(file)
        try:
            found = import_directions(
                content, file.stem, model, latents, layers=options.layers, count=options.count
            )
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        _check_name(file, found[0].space)
        for record in found:
            source = {"file": shown(file.name, 200), **record.source}
            records.append(record._replace(name=shown(record.name), source=source))
            origins.append(f"{source['file']}, row {source['row']} of {source['of']}")
        if (more := found[0].source["of"] - len(found)) > 0:
            left_out.append(f"{file}: {more} more are left out (--count {options.count})")
    index = []
    with new_folder(options.output, overwrite=options.overwrite, marker=DIRECTIONS_MARKER) as path:
        for i, record in enumerate(records):
            name = f"{i:02d}-{slug(record.name)}.json"
            save_direction(path / name, record)
            index.append({"file": name, "name": record.name, "attribute": record.name})
        (path / DIRECTIONS_MARKER).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    rows = [
        (entry["file"], entry["name"], "-".join(map(str, record.direction.layers)),
         f"{record.direction.unit:.3g}", origin)
        for entry, record, origin in zip(index, records, origins, strict=True)
    ]  # fmt: skip
    print(table([("file", "name", "layers", "one standard deviation", "from"), *rows]))
    for line in left_out:
        print(shown(line, 200))
    print(f"{options.output}: {len(records)} directions in {records[0].space}")


def _content(file: Path) -> Any:
    """What a file holds; of an .npz the only array that is needed."""
    if file.suffix.lower() not in (".npy", ".npz"):
        return containers.read(file)
    with reading(file, "file of directions") as stream:
        arrays = Arrays(stream, alone="directions")
        if arrays.names == ["directions"]:
            return arrays.array("directions", kinds="f")
        if "lat_comp" not in arrays:
            names = shown(", ".join(arrays.names), 100)
            raise ValueError(f"it holds {names}, and not GANSpace's lat_comp")
        return {"lat_comp": arrays.array("lat_comp", kinds="f")}


def _check_name(file: Path, space: str) -> None:
    """Warns where a name as InterFaceGAN and GANSpace give them is of another space."""
    said = re.findall(r"_([wz])(?=_|$)", file.stem)
    if said and not re.search(rf"-{said[-1]}\b", space):
        warnings.warn(
            f"the name of {file} says {said[-1]}, and its directions are taken for those of"
            f" {space}: if they are not, choose --space {said[-1]}",
            stacklevel=2,
        )
