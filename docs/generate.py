"""Pages of the reference that are made of the code itself, written when the site is built.

`generated/` in docs/reference gets the public names, package by package, with their docstrings;
every command with its arguments, from its parser; and every message, from tests/messages.txt.
"""

import argparse
import importlib
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes

from sfvq_jax.cli.main import COMMANDS, _parser

DOCS = Path(__file__).parent
GENERATED = DOCS / "reference" / "generated"
PACKAGES = {  # with public names -> title of its page
    "sfvq_jax": "sfvq_jax: fit, project, measure",
    "sfvq_jax.interpret": "sfvq_jax.interpret: attributes, directions, edits",
    "sfvq_jax.layers": "sfvq_jax.layers: a quantiser inside a network",
    "sfvq_jax.layers.linen": "sfvq_jax.layers.linen",
    "sfvq_jax.layers.nnx": "sfvq_jax.layers.nnx",
    "sfvq_jax.views": "sfvq_jax.views: figures, pages, files of edits",
    "ports": "ports: generators of others in Flax",
}


def write_pages() -> None:
    """Writes those pages that are not as they should be."""
    pages = {name: api(name, title) for name, title in PACKAGES.items()}
    pages |= {"commands": commands(), "messages": messages()}
    GENERATED.mkdir(exist_ok=True)
    for path in GENERATED.glob("*.md"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = GENERATED / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def api(package: str, title: str) -> str:
    """The public names of a package, in sections: one for each file that they stand in."""
    module = importlib.import_module(package)
    sections: dict[str, list[str]] = {}
    for name in public_names(module):
        sections.setdefault(home(package, getattr(module, name)), []).append(name)
    lines = [f"# {title}", "", first_line(module), ""]
    for where, names in sorted(sections.items()):
        if len(sections) > 1:
            lines += [f"## {where.removeprefix(package).lstrip('.') or package}", ""]
            lines += [] if where == package else [first_line(importlib.import_module(where)), ""]
        lines += ["```{eval-rst}", f".. currentmodule:: {package}", ""]
        summed_up = [name for name in names if hasattr(getattr(module, name), "__qualname__")]
        if len(summed_up) > 1:
            lines += [".. autosummary::", "   :nosignatures:", ""]
            lines += [f"   {name}" for name in summed_up]
        for name in names:
            lines += ["", *directive(name, getattr(module, name))]
        lines += ["```", ""]
    return "\n".join(lines)


def public_names(module: Any) -> list[str]:
    """What a package lists, or what a file defines; without modules."""
    listed = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
    ]
    return [name for name in listed if not inspect.ismodule(getattr(module, name))]


def home(package: str, value: Any) -> str:
    """The file, or the package below `package`, that a name comes from."""
    where = getattr(value, "__module__", package)
    if not where.startswith(f"{package}."):
        return where if where.startswith(package.partition(".")[0]) else package
    below = where.removeprefix(f"{package}.").split(".")
    return f"{package}.{below[0]}"


def first_line(module: Any) -> str:
    return inspect.getdoc(module).split("\n\n")[0].replace("\n", " ")


def directive(name: str, value: Any) -> list[str]:
    """How autodoc is told to document a name."""
    if inspect.isclass(value):
        kind = "exception" if issubclass(value, BaseException) else "class"
        return [f".. auto{kind}:: {name}", "   :members:"]
    if inspect.isroutine(value) or hasattr(value, "__wrapped__"):
        return [f".. autofunction:: {name}"]
    told = [f"   :value: {value}"] if isinstance(value, tuple) else []  # a path is the machine's
    return [f".. py:data:: {name}", *told]


def skip_member(app, what, name, member, skip, options) -> bool | None:
    """Fields, which the class's docstring tells, and flax's `replace`."""
    is_field = not (inspect.isroutine(member) or getattr(member, "fget", None))
    silent = not getattr(member, "__doc__", None)  # or that of another class would be shown
    return True if what == "class" and (name == "replace" or is_field or silent) else None


def prepare_docstring(app, what, name, value, options, lines) -> None:
    """Keeps |x| and `.npz` from being marks of reStructuredText, and links each "equation 5"."""
    text = "\n".join(lines).replace("|", r"\|")
    text = re.sub(r"`([^`]+)`", lambda m: m[0] if m[1][0].isalpha() else f"`{m[0]}`", text)
    named = r"\bequation (\d+)(\s+of\s+docs/explanation/equations\.md)?"
    lines[:] = re.sub(named, r":ref:`equation \1 <equation-\1>`", text).split("\n")


def know_anchors(app, doctree) -> None:
    """Lets links lead to `<a id="claim-…">`, which benchmarks.pages puts into tables."""
    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for node in doctree.findall(nodes.raw):
        for name in re.findall(r'<a id="(claim-[^"]+)">', node.astext()):
            slugs[name] = (node.line, name, "")


def commands() -> str:
    """Every command, from its parser."""
    os.environ["COLUMNS"] = "88"
    head = (
        "A command that succeeds has the exit status 0. One that fails has 2 and prints one"
        " sentence ([messages](messages.md))."
    )
    parts = ["# Commands", "", head, ""]
    for name, what in COMMANDS.items():
        parser = command_parser(name)
        parts += [f"## {name}", "", f"{what[0].upper()}{plain(what[1:])}.", ""]
        parts += ["```text", usage(parser), "```", ""]
        for term, help in arguments(parser):
            parts += [f"`{term}`", f": {plain(help)}", ""]
        examples = re.findall(r"sfvq-jax .*(?:\\\n.*)*", parser.epilog or "")
        if examples:
            parts += ["```bash", *examples, "```", ""]
    return "\n".join(parts)


def usage(parser: argparse.ArgumentParser) -> str:
    start = "usage: "
    return parser.format_usage().removeprefix(start).replace(f"\n{' ' * len(start)}", "\n").strip()


def command_parser(name: str) -> argparse.ArgumentParser:
    (subparsers,) = (
        action
        for action in _parser(name)._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return subparsers.choices[name]


def arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """(how it is written, what it does) of each."""
    formatter = argparse.HelpFormatter(parser.prog)
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
            help = formatter._expand_help(action) if action.help else "see above"
            yield formatter._format_action_invocation(action), help


def plain(text: str) -> str:
    """Text without marks of Markdown."""
    return re.sub(r"([\\*_{}\[\]<>|$#])", r"\\\1", " ".join(text.split()))


def messages() -> str:
    """What is said where something is wrong, command by command."""
    table = (DOCS.parent / "tests" / "messages.txt").read_text(encoding="utf-8")
    prompt = "$ sfvq-jax "
    by_command: dict[str, list[str]] = {}
    for block in table.split(prompt)[1:]:
        by_command.setdefault(block.split()[0], []).append(prompt + block.strip())
    parts = [
        "# Messages",
        "",
        "Error messages of the commands. Each command line is followed by its message. The tests"
        " run every one (`tests/messages.txt`).",
        "",
    ]
    for name, blocks in by_command.items():
        parts += [f"## {name}", "", "```text", "\n\n".join(blocks), "```", ""]
    return "\n".join(parts)
