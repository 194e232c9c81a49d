"""Public names: each function has an example in its docstring, which the tests run."""

import doctest
import importlib
import inspect

import pytest

PACKAGES = ("sfvq_jax", "sfvq_jax.interpret", "sfvq_jax.layers", "sfvq_jax.views", "ports")


def functions_of(package):
    """Public functions of a package by name, compiled ones and those that are not listed too."""
    module = importlib.import_module(package)
    for name in dir(module):
        value = getattr(module, name)
        ours = getattr(value, "__module__", None) or ""
        if name.startswith("_") or ours.partition(".")[0] not in ("sfvq_jax", "ports"):
            continue
        if inspect.isroutine(value) or hasattr(value, "__wrapped__"):
            yield name, value


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_function_has_an_example_that_the_tests_run(package):
    finder, without, functions = doctest.DocTestFinder(), [], dict(functions_of(package))
    assert functions
    for name, function in functions.items():
        module = importlib.import_module(function.__module__)
        found = finder.find(module)  # as pytest does, file by file
        run = {test.name for test in found if test.examples}
        if f"{module.__name__}.{function.__name__}" not in run:
            without.append(name)
    assert not without, f"without an example (>>>) in the docstring: {', '.join(without)}"
