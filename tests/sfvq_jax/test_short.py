"""What a value shows of itself is a line or two, however much it holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ports
from sfvq_jax import ArraySource, Curve, CurveRecord, History, Info, Projection
from sfvq_jax.interpret import Direction, DirectionRecord, Scorer

BIG = np.zeros((4096, 512), np.float32)
LONG = np.zeros(4096, np.float32)


def models():
    model = ports.load(ports.bundled("fashion_mnist"))
    biggan = ports.load(ports.bundled("fashion_mnist_biggan"))
    return [model, model.space("z", None, None), biggan, biggan.space("linear", None, None)]


VALUES = [
    Curve(BIG),
    CurveRecord(Curve(BIG), settings={str(i): i for i in range(99)}),
    Projection(LONG, LONG, LONG),
    History(LONG, LONG, LONG, LONG, LONG, BIG, LONG),
    Info(LONG, LONG, LONG),
    ArraySource(BIG, LONG, 4096),
    Direction(LONG, layers=(0, 3), unit=1.0),
    DirectionRecord(Direction(LONG, layers=(0, 3), unit=1.0)),
    Scorer.of(lambda images: images, tuple(map(str, range(99)))),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_short(value):
    assert repr(value).startswith(type(value).__name__)
    assert len(repr(value)) < 240


def test_models_are_short():
    assert all(len(repr(model)) < 240 for model in models())


def test_shapes_and_types_are_shown_also_of_what_is_traced():
    assert repr(Curve(BIG)) == "Curve(codewords=float32[4096, 512], size=None)"
    shown = []
    jax.jit(lambda curve: shown.append(repr(curve)) or curve)(Curve(jnp.zeros((4, 2))))
    assert shown == ["Curve(codewords=float32[4, 2], size=None)"]
