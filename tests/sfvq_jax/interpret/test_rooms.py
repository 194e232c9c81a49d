"""The order of the rooms: a package imports from those above it, and from none below."""

import ast
import importlib
from pathlib import Path

import pytest

import sfvq_jax.interpret

INTERPRET = Path(sfvq_jax.interpret.__file__).parent
ROOMS = (
    "geometry",
    "intervals",
    "work",
    "attributes",
    "map",
    "edit",
    "directions",
    "inversion",
    "augment",
    "comparison",
    "dimensions",
)
BELOW = ("views", "explore", "cli")  # of the library, all of `interpret`


def imported(path):
    """All modules that a file imports, in functions too, by their full names."""
    package = [*path.relative_to(INTERPRET.parents[1]).with_suffix("").parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            # of a package, what is imported may be a module of it
            yield from (f"{module}.{name.name}" for name in node.names)


def rooms_of(path):
    """The rooms of `interpret` that a file imports from; "" for `interpret` itself."""
    for name in imported(path):
        if name.startswith("sfvq_jax.interpret"):
            room = [*name.split("."), ""][2]
            yield room if room in ROOMS else ""


def test_every_room_is_in_the_order():
    there = {
        p.stem for p in INTERPRET.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert there - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_from_one_below_it(room):
    files = [INTERPRET / f"{room}.py", *(INTERPRET / room).rglob("*.py")]
    files += (INTERPRET / room).rglob("*.pyi")
    allowed = ROOMS[: ROOMS.index(room) + 1]
    for file in filter(Path.exists, files):
        assert set(rooms_of(file)) <= set(allowed), file
        below = [name for name in imported(file) for b in BELOW if name.startswith(f"sfvq_jax.{b}")]
        assert not below, file


@pytest.mark.parametrize("package", [r for r in ROOMS if (INTERPRET / r).is_dir()])
def test_every_name_in_a_table_of_contents_is_there(package):
    room = importlib.import_module(f"sfvq_jax.interpret.{package}")
    stub = ast.parse((INTERPRET / package / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    assert sorted(name.name for node in imports for name in node.names) == sorted(room.__all__)
    assert all(hasattr(room, name) for name in room.__all__)


def test_the_whole_table_of_contents_is_that_of_the_rooms():
    for node in ast.parse((INTERPRET / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            assert node.module in ROOMS
            room = importlib.import_module(f"sfvq_jax.interpret.{node.module}")
            for name in node.names:
                assert getattr(sfvq_jax.interpret, name.name) is getattr(room, name.name)
