"""Results on this device against NumPy in float64, at every precision that is offered.

Every row has its tolerance, that of the arithmetic: TF32 keeps 10 bits of a factor, bfloat16 7.
"""

import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ports
from benchmarks.accelerator.library import LEAST_USE, PRECISIONS, PULL
from benchmarks.accelerator.record import OutOfTimeError, Part, Row
from ports.upstream import read as read_upstream
from sfvq_jax import Adam, Curve, LeastSquares, fit, project, step

CHECKOUT = Path(__file__).parents[2]
UPSTREAM = CHECKOUT / "tests/fixtures/stylegan2/tiny_ada_gray_cond"

# tolerances, by precision
EXCESS = {"highest": 1e-5, "tf32": 1e-3, "bfloat16": 1e-2}
DISTANCE = {"highest": 1e-5, "tf32": 1e-5, "bfloat16": 1e-5}
STEP = {"highest": 1e-2, "tf32": 5e-2, "bfloat16": 0.1}  # one sample on another line is 5e-3
DISTORTION = {"highest": 1e-6, "tf32": 1e-4, "bfloat16": 1e-3}
ADAM_STEP = 1e-3
IMAGES = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}

ROUND_ROWS, QUICK_ROUND_ROWS, ROUND_DIM = 2**13, 2**11, 64
ADAM_STEPS, ADAM_BATCH = 30, 64
EXACT_CODEWORDS = 256  # up to here a fit is the same bit for bit, on a GPU too
FIT_ROWS, FIT_DIM = 2**13, 64  # XLA adds row after row where it is to be deterministic
REFERENCE_FLOATS = 2**24  # of differences [N, K, D] that are in memory at once
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def measure(part: Part) -> None:
    part.describe(
        tables=[{"index": ["check", "at"], "values": ["ok", "same", "error ÷ tolerance"]}],
        least_squares=vars(LeastSquares()),
        deterministic=DETERMINISTIC,
    )
    bits = (3,) if part.quick else (6, 9)
    with deterministic_fits(bits) as deterministic:  # meanwhile, in a process of its own
        check_all(part, bits)
        names = {"check": f"the same, {bits[-1]} bits and {DETERMINISTIC}", "at": "highest"}
        part.row(functools.partial(check_deterministic, deterministic, part), **names)


def check_all(part: Part, bits: tuple[int, ...]) -> None:
    """All rows of this process."""
    for n, d, k, mean in [(1000, 96, 513, 0.0), (700, 32, 256, 30.0)]:
        for precision in PRECISIONS[: 1 if part.quick and mean else None]:
            check = functools.partial(check_projection, n, d, k, mean, precision)
            part.row(check, check=f"projection, N={n} D={d} K={k} mean={mean:g}", at=precision)
    rows = QUICK_ROUND_ROWS if part.quick else ROUND_ROWS
    for k in (64, 300 if part.quick else 512):  # sums by products, and row by row
        for precision in PRECISIONS[: 1 if part.quick and k > 64 else None]:
            check = functools.partial(check_round, rows, k, precision)
            part.row(check, check=f"least squares, K={k}", at=precision)
    part.row(check_adam, check=f"Adam, {ADAM_STEPS} steps", at="highest")
    for name, quick in {"fashion_mnist": "float32", "fashion_mnist_biggan": "bfloat16"}.items():
        for dtype in (quick,) if part.quick else IMAGES:
            check = functools.partial(check_images, name, dtype)
            part.row(check, check=f"images of {name}", at=dtype)
    part.row(check_upstream, check="StyleGAN2 as upstream", at="float32")
    for number in bits:
        check = functools.partial(check_twice, number)
        part.row(check, check=f"the same fit twice, {number} bits", at="highest")


def judged(**errors: tuple[float, float]) -> Row:
    """A row of errors and their tolerances, and whether all are within; NaN never is."""
    shares = [error / tolerance for error, tolerance in errors.values()]
    row: Row = {
        "ok": all(share <= 1 for share in shares),
        "error ÷ tolerance": float(np.max(shares)),
    }
    for name, (error, tolerance) in errors.items():
        row |= {name.replace("_", " "): float(error), f"{name.replace('_', ' ')} ≤": tolerance}
    return row


# The curve.


def check_projection(n: int, d: int, k: int, mean: float, precision: str) -> Row:
    """How much farther than the nearest point the found ones are at most, and the distances.

    Both are shares of the mean distance, squared.
    """
    x, codewords, least = projection_to_check(n, d, k, mean)
    found = project(Curve(jnp.asarray(codewords)), jnp.asarray(x), precision=precision)
    line, fraction, distance = (np.asarray(value) for value in found)
    true = squared_distance(x, codewords, line, fraction)
    return judged(
        excess=((true - least).max() / least.mean(), EXCESS[precision]),
        distance=(np.abs(distance - true).max() / least.mean(), DISTANCE[precision]),
    ) | {"other lines": float(np.mean(true - least > 1e-6 * least.mean()))}


@functools.cache
def projection_to_check(
    n: int, d: int, k: int, mean: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples, codewords, and the squared distances to the nearest points."""
    rng = np.random.default_rng(0)
    x, codewords = (
        rng.standard_normal((size, d), np.float32) + np.float32(mean) for size in (n, k)
    )
    return x, codewords, nearest(x, codewords).squared_distance


def check_round(n: int, k: int, precision: str) -> Row:
    """Error of a round's step by the step's size, and of the distortion after it."""
    x, before, expected, distortion = round_to_check(n, k)
    solver = LeastSquares(precision=precision)
    curve, key = Curve(jnp.asarray(before)), jax.random.key(0)
    ours = jax.jit(step)(solver, curve, solver.init(curve), key, jnp.asarray(x))[0].codewords
    ours, way = np.asarray(ours, np.float64), expected - before
    change = nearest(x, ours).squared_distance.mean() - distortion
    return judged(
        step=(np.linalg.norm(ours - expected) / np.linalg.norm(way), STEP[precision]),
        distortion=(abs(change) / distortion, DISTORTION[precision]),
    )


@functools.cache
def round_to_check(n: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Samples, codewords before and after a round, and the distortion then."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, ROUND_DIM), np.float32)
    before = x[:k] + rng.standard_normal((k, ROUND_DIM), np.float32) / 2
    expected = reference_round(x, before, LeastSquares().length_penalty)
    return x, before, expected, nearest(x, expected).squared_distance.mean()


def check_adam() -> Row:
    """Error of the way that some steps go, by its length."""
    rng = np.random.default_rng(2)
    k, d, solver = 32, 128, Adam()
    before = rng.standard_normal((k, d), np.float32)
    batches = rng.standard_normal((ADAM_STEPS, ADAM_BATCH, d), np.float32)
    fractions = rng.random((ADAM_STEPS, k - 1), np.float32)
    curve = Curve(jnp.asarray(before))
    state = jax.jit(solver.init)(curve)

    @jax.jit
    def step_on(curve: Curve, state: Any, x: jax.Array, fractions: jax.Array) -> tuple[Curve, Any]:
        sums = solver.statistics(curve, fractions, x, jnp.ones_like(x[:, 0]))
        return solver.update(curve, state, sums)[:2]

    for x, its_fractions in zip(batches, fractions, strict=True):
        curve, state = step_on(curve, state, jnp.asarray(x), jnp.asarray(its_fractions))
    expected = reference_adam(before, batches, fractions, solver.learning_rate)
    ours = np.asarray(curve.codewords, np.float64)
    way = np.linalg.norm(expected - before)
    return judged(step=(np.linalg.norm(ours - expected) / way, ADAM_STEP))


class Nearest(NamedTuple):
    """The nearest points of a curve, [N] each."""

    line: np.ndarray
    fraction: np.ndarray
    squared_distance: np.ndarray


def nearest(x: np.ndarray, codewords: np.ndarray) -> Nearest:
    """By the distances of all samples [N, D] to all lines, in float64."""
    x, codewords = x.astype(np.float64), codewords.astype(np.float64)
    parts = list(_nearest_by_part(x, codewords))
    return Nearest(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _nearest_by_part(x: np.ndarray, codewords: np.ndarray) -> Iterator[Nearest]:
    step = np.diff(codewords, axis=0)
    length = (step**2).sum(1)
    rows = max(1, REFERENCE_FLOATS // codewords.size)
    for start in range(0, len(x), rows):
        offset = x[start : start + rows, None] - codewords[None, :-1]
        fraction = np.clip(np.einsum("nkd,kd->nk", offset, step) / length, 0, 1)
        offset -= fraction[:, :, None] * step
        distance = np.einsum("nkd,nkd->nk", offset, offset)
        line = distance.argmin(1)
        own = np.arange(len(line)), line
        yield Nearest(line, fraction[own], distance[own])


def squared_distance(
    x: np.ndarray, codewords: np.ndarray, line: np.ndarray, fraction: np.ndarray
) -> np.ndarray:
    """From samples [N, D] to points of the curve, [N] float64."""
    codewords, share = codewords.astype(np.float64), fraction.astype(np.float64)[:, None]
    point = (1 - share) * codewords[line] + share * codewords[line + 1]
    return ((x - point) ** 2).sum(1)


def reference_round(x: np.ndarray, codewords: np.ndarray, penalty: float) -> np.ndarray:
    """The codewords after a round, [K, D] float64, from the dense normal matrix.

    Lines beyond the harmonic mean step, which the samples inside the lines weigh, are held by less.
    """
    k = len(codewords)
    x, codewords = x.astype(np.float64), codewords.astype(np.float64)
    found = nearest(x, codewords)
    rows, share = np.arange(len(x)), np.zeros((len(x), k))
    share[rows, found.line] = 1 - found.fraction
    share[rows, found.line + 1] += found.fraction
    steps = np.diff(np.eye(k), axis=0)
    load = len(x) / k
    inside = found.fraction * (1 - found.fraction)
    use = np.bincount(found.line, inside, minlength=k - 1) + LEAST_USE * load
    length = np.linalg.norm(steps @ codewords, axis=1)
    mean_step = use.sum() / (use / length).sum()
    stiff = penalty * np.minimum(1, mean_step / length)
    matrix = share.T @ share + load * (steps.T @ (stiff[:, None] * steps) + PULL * np.eye(k))
    return np.linalg.solve(matrix, share.T @ x + load * PULL * codewords)


def reference_adam(
    codewords: np.ndarray, batches: np.ndarray, fractions: np.ndarray, rate: float
) -> np.ndarray:
    """The codewords [K, D] float64 after a step on each batch, at the rate of a stage's start."""
    codewords = codewords.astype(np.float64)
    first, second = np.zeros_like(codewords), np.zeros_like(codewords)
    for i, (x, fraction) in enumerate(zip(batches, fractions, strict=True), 1):
        share = fraction.astype(np.float64)[:, None]
        points = (1 - share) * codewords[:-1] + share * codewords[1:]
        offset = points[None] - x.astype(np.float64)[:, None]
        line = (offset**2).sum(2).argmin(1)
        gradient_of_points = np.zeros_like(points)
        np.add.at(gradient_of_points, line, 2 / x.size * offset[np.arange(len(x)), line])
        gradient = np.zeros_like(codewords)
        gradient[:-1] += (1 - share) * gradient_of_points
        gradient[1:] += share * gradient_of_points
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        root = np.sqrt(second / (1 - 0.999**i)) + 1e-8
        codewords = codewords - rate * first / (1 - 0.9**i) / root
    return codewords


# The generators.


def check_images(name: str, dtype: str) -> Row:
    """Against the same network in float64 on the CPU, ‖difference‖ / ‖images‖."""
    model = ports.load(ports.bundled(name), dtype=jnp.dtype(dtype))
    images = np.asarray(render(model), np.float64)
    expected = float64_images(name)
    error = np.linalg.norm(images - expected) / np.linalg.norm(expected)
    return judged(images=(error, IMAGES[dtype]))


@functools.cache
def float64_images(name: str) -> np.ndarray:
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        model: Any = ports.load(ports.bundled(name))
        variables = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), model.variables)
        return np.asarray(render(model.replace(variables=variables, dtype=jnp.dtype("float64"))))


def render(model: Any) -> jax.Array:
    """A few images of the same latents, whatever the precision."""
    rng = np.random.default_rng(3)
    if isinstance(model, ports.StyleGAN2):
        dtype = model.variables["constants"]["mapping"]["w_avg"].dtype
        z = jnp.asarray(rng.standard_normal((8, model.config.z_dim), np.float32), dtype)
        return model.synthesis(model.mapping(z))
    dtype = model.variables["params"]["embedding"]["weight"].dtype
    z = jnp.asarray(rng.standard_normal((8, model.config.z_dim), np.float32), dtype)
    return model(z, jnp.arange(8) % model.num_classes)


def check_upstream() -> Row:
    """A converted StyleGAN2 against the images of NVIDIA's code that are kept with the tests."""
    model = ports.build(read_upstream(UPSTREAM.with_suffix(".pkl"), None))
    kept = ports.read_reference(UPSTREAM.with_suffix(".npz"))
    differences = ports.compare(model, {name: kept[name] for name in ("z", "c", "w", "img_const")})
    return judged(images=(max(difference.relative for difference in differences), 1e-5))


# The same fit twice.


def check_twice(bits: int) -> Row:
    same = same_twice(bits)
    promised = jax.default_backend() == "cpu" or 2**bits <= EXACT_CODEWORDS
    return {"same": same} | ({"ok": same} if promised else {})


@contextlib.contextmanager
def deterministic_fits(bits: tuple[int, ...]) -> Iterator[subprocess.Popen]:
    """A process that prints whether fits are the same twice; XLA reads its flags but once."""
    program = (
        "import json; from benchmarks.accelerator.correctness import same_twice;"
        f" print(json.dumps([same_twice(bits) for bits in {bits!r}]))"
    )
    flags = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        env=os.environ | {"XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def check_deterministic(process: subprocess.Popen, part: Part) -> Row:
    try:
        printed, _ = process.communicate(timeout=max(1.0, part.seconds_left))
    except subprocess.TimeoutExpired:
        raise OutOfTimeError("no time was left before its process ended") from None
    if process.returncode:
        raise RuntimeError(f"its process ended with code {process.returncode}")
    same = all(json.loads(printed.splitlines()[-1]))
    return {"same": same, "ok": same}


def same_twice(bits: int) -> bool:
    """Whether two fits give the same curve, bit for bit."""
    x = jax.random.normal(jax.random.key(0), (FIT_ROWS, FIT_DIM))
    solver = LeastSquares(rounds=2)
    first, second = (
        np.asarray(fit(jax.random.key(1), x, bits=bits, solver=solver).curve.codewords)
        for _ in range(2)
    )
    return bool(np.isfinite(first).all()) and np.array_equal(first, second)
