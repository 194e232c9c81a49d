"""`explore`: a page to walk a curve, label and edit; live, or all of it as one file."""

import argparse
import contextlib
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sfvq_jax.cli.common import (
    add_examples,
    add_memory,
    add_output,
    add_scorer_option,
    fitted_scorers,
    with_statistics,
)
from sfvq_jax.cli.directions import indexed
from sfvq_jax.cli.latents import add_latents, read_latents
from sfvq_jax.cli.map import add_images, add_labels, check_drawn, read_images, read_labels
from sfvq_jax.cli.models import LATENTS_HELP, add_model_and_curve, is_of_latents, load_for
from sfvq_jax.explore.export import export_page
from sfvq_jax.explore.row_model import row_model
from sfvq_jax.explore.subject import NamedDirection, Photographs, Subject, own_data
from sfvq_jax.interpret import load_direction
from sfvq_jax.io.curve_file import curve_sha256, load_curve
from sfvq_jax.io.label_file import Label, labels_path, load_labels
from sfvq_jax.io.output import new_file
from sfvq_jax.sources import HostSource, as_rows

MOST_DIRECTIONS = 150


def add_explore(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_explore)
    command.add_argument(
        "--overwrite", action="store_true", help="replace an existing exported file"
    )
    add_examples(
        command,
        "explore fashion_mnist sfvq-jax-demo/curve.npz",
        "explore ffhq/ curve.npz --directions directions/ --scorer scorer.npz --data mine.npy",
        "explore ffhq/ curve.npz --directions directions/ --latents us.npz",
        "explore fashion_mnist curve.npz --export map.html",
        "explore embeddings.npy curve.npz --images photos/ --labels labels.npy",
    )
    add_model_and_curve(command, arrays=True)
    add_images(command, "the page shows the one nearest to each position")
    add_output(
        command, "file (.html) for the page, which is not served then", "--export",
        endings=(".html",),
    )  # fmt: skip
    command.add_argument(
        "--directions",
        action="append",
        default=[],
        help="folder that `directions` wrote, or a direction file (.json); may be repeated",
    )
    add_scorer_option(command)
    add_latents(command)
    command.add_argument("--data", help=f"data to show at their positions: {LATENTS_HELP}")
    add_labels(command)
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve at (default: %(default)s); with another one, other machines can"
        " connect",
    )
    command.add_argument(
        "--port", type=_port, default=0, help="port to serve at (default: any free one)"
    )
    add_memory(command)
    command.add_argument(
        "--no-browser", action="store_true", help="print the link, open no browser"
    )


def _port(text: str) -> int:
    if text.isdecimal() and int(text) < 2**16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text}: expected a port from 0 to 65535")


def run_explore(options: argparse.Namespace) -> None:
    if options.rows is not None and options.latents is None:
        raise ValueError("--rows goes with --latents, photographs of yours: leave it out")
    if options.export is not None:
        subject = subject_of(options)
        labels = labels_of(subject, options.curve)
        with new_file(options.export, overwrite=options.overwrite) as temporary:
            temporary.write_text(exported(subject, labels, limits=True), encoding="utf-8")
            size = temporary.stat().st_size / 1e6
        print(f"{options.export}: {size:.1f} MB; open it in a browser, no network is needed")
        return
    _serve(options)


def exported(subject: Subject, labels: Sequence[Label], *, limits: bool) -> str:
    """The page, with a bar while it is made."""
    with tqdm(unit=" steps", leave=False, disable=None) as bar:

        def on_step(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return export_page(subject, labels=labels, limits=limits, on_step=on_step)


def labels_of(subject: Subject, curve_file: str) -> tuple[Label, ...]:
    """Those that lie beside the curve, if there are any."""
    path = labels_path(curve_file)
    if not path.exists():
        return ()
    sha256 = curve_sha256(subject.record._replace(curve=subject.curve))
    return load_labels(path, curve_sha256=sha256, num_lines=subject.curve.num_lines).labels


def subject_of(options: argparse.Namespace) -> Subject:
    """What the options name, once it is known that all of it belongs together."""
    record = load_curve(options.curve)
    directions = _directions(options.directions)
    of_rows = is_of_latents(options.model)
    _check_options(options, of_rows)
    shown = options.model if of_rows else options.data
    source = None if shown is None else HostSource(shown, scale=options.scale)
    if of_rows and source is not None:
        as_rows(source, record.curve)
        model = row_model(source, read_images(options, source))
    else:
        model = load_for(options.model, [record, *(named.record for named in directions)])
    scorers = fitted_scorers(options)
    find, judge = with_statistics(scorers, model)
    photographs = None
    if options.latents is not None:
        latents, rows, names = read_latents(options.latents, model, options.rows)
        photographs = Photographs(np.asarray(latents), options.latents, rows, names)
    data = None
    if source is not None and shown is not None:
        data = own_data(source, record.curve, name=shown, labels=read_labels(options))
    return Subject(
        model,
        record,
        find,
        judge,
        classes=() if scorers is None else scorers.classes,
        directions=tuple(directions),
        model_name=options.model,
        curve_name=options.curve,
        data=data,
        photographs=photographs,
    )


def _check_options(options: argparse.Namespace, of_rows: bool) -> None:
    """Raises ValueError where options do not go with a generator, or with rows in its place."""
    if of_rows:
        if options.images is None:
            raise ValueError(
                f"{options.model} holds latents, and a page shows images: name theirs by --images,"
                " or name the generator; `sfvq-jax map` draws their classes without images"
            )
        if options.data is not None:
            raise ValueError(f"--data goes with a generator: {options.model} is shown already")
        return
    check_drawn(options, ["images"])
    for name, what in (("labels", "are classes of"), ("scale", "is of")):
        if getattr(options, name) is not None and options.data is None:
            raise ValueError(f"--{name} {what} --data: leave it out, or name the latents")


def _directions(names: Sequence[str]) -> list[NamedDirection]:
    """Of direction files, and of all that folders list."""
    files: list[Path] = []
    for name in names:
        path = Path(name)
        files += [file for _, file in indexed(path)] if path.is_dir() else [path]
    if len(files) > MOST_DIRECTIONS:
        raise ValueError(
            f"there are {len(files)} directions, and a page shows up to {MOST_DIRECTIONS}: name"
            " fewer"
        )
    return [NamedDirection(str(file), load_direction(file)) for file in files]


def _serve(options: argparse.Namespace) -> None:
    try:
        from sfvq_jax.explore import server
    except ImportError as error:
        raise ValueError(
            "the live page takes the packages starlette and uvicorn, which are not installed: pip"
            " install 'sfvq-jax[explore]', or write one file by --export map.html"
        ) from error
    with contextlib.closing(server.bound(options.host, options.port)) as listener:
        explorer = server.Explorer(subject_of(options), options.curve)
        token = server.new_token()
        link = server.permalink(options.host, listener.getsockname()[1], token)
        if not server.is_loopback(options.host):
            print(
                f"sfvq-jax explore: {options.host} is not this machine alone: whoever reaches it"
                " and has the link sees this model's images and changes the labels, and the"
                " connection is not encrypted",
                file=sys.stderr,
            )

        print(
            f"{link}\nlabels are kept in {labels_path(options.curve)}; Control-C ends", flush=True
        )
        if not options.no_browser:  # which waits, since the socket listens already
            webbrowser.open(link)
        app = server.app_of(explorer, token, options.host)
        with contextlib.closing(explorer), contextlib.suppress(KeyboardInterrupt):
            server.server_of(app).run([listener])
