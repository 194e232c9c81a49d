"""Strict JAX, several CPU devices, fresh keys, and where the shared fixtures are."""

import os
from importlib.metadata import version

os.environ.setdefault(
    "XLA_FLAGS",
    # most of the tests' time is compilation, and these take a third off it
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
    # a flag that XLA does not know ends the process
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    * version("jaxlib").startswith("0.10."),
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import gc
import itertools
import signal
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import jax
import matplotlib
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# to look for garbage after every 700 objects, of which JAX makes many that stay, takes up to a
# fifth of the time of tests that trace much
gc.set_threshold(50_000, 20, 20)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a run in the background of a shell has Control-C ignored, and so would have what it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True, scope="module")
def free_programs():
    """Drops compiled programs before they are too many: beyond 65,530 mappings XLA crashes.

    What JAX keeps of them is looked through by every later garbage collection, and each command
    makes one: that took a fifth of the whole run.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def cache_folder():
    """A cache folder for the command line's compiled programs that is not the user's."""
    os.environ.setdefault("MPLCONFIGDIR", matplotlib.get_cachedir())  # its list of fonts stays
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        yield


@pytest.fixture
def getkey():
    """A function that gives a fresh PRNG key at each call, the same in every run."""
    counter = itertools.count()
    return lambda: jax.random.key(next(counter))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The project's shared data and fixtures, which users do not have."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the project's shared data in {SHARED.name}/ beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def s3():
    """A bucket of a server of this machine that speaks S3; the environment names the server."""
    moto = pytest.importorskip("moto.server", reason="needs the extra [test]")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", address)
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_ACCESS_KEY_ID", "somebody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "something")
        urllib.request.urlopen(urllib.request.Request(f"{address}/latents", method="PUT")).close()
        yield "s3://latents"
    server.stop()


@pytest.fixture(scope="session")
def fixture_file(request) -> Callable[[str], Path]:
    """Where a fixture such as 'stylegan2/tiny_tf_sg2.pkl' is: with the tests, or shared data."""

    def find(name: str) -> Path:
        shipped = Path(__file__).parent / "fixtures" / name
        if shipped.exists():
            return shipped
        return request.getfixturevalue("shared") / "fixtures" / name

    return find
