"""`plan`: its bytes are those of the compiled programs, its seconds near what was measured."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from benchmarks.report import RESULTS
from benchmarks.scaling import begin, collective_bytes
from sfvq_jax import Curve, LeastSquares, data_mesh, project
from sfvq_jax.blocks import AtHand
from sfvq_jax.cli import main
from sfvq_jax.planning import CHIPS, add_bytes, memory_of, plan, projecting, update_bytes
from sfvq_jax.rounds import add_sums, update_by_sums
from sfvq_jax.rows.source import Block
from sfvq_jax.span import Span

DEVICES, K, D, BLOCK = 8, 1024, 64, 2**12


@pytest.fixture(scope="module")
def programs():
    """Of a round on eight simulated devices: what takes in a block, and what ends it."""
    mesh = data_mesh(jax.devices()[:DEVICES])
    solver = LeastSquares()
    curve, state, sums, draws = begin(solver, mesh, K, D)
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    samples = (
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place) for shape in ((BLOCK, D), (BLOCK,))
    )
    add = add_sums.lower(mesh, solver, curve, sums, draws, AtHand(Block(*samples), Span()), 0, 1)
    update = update_by_sums.lower(mesh, solver, curve, state, sums)
    return add.compile(), update.compile()


def test_chips_send_what_the_program_gives_to_its_collectives(programs):
    add, update = programs
    sent = plan((10**6, D), K, CHIPS["h100"], chips=DEVICES).sent
    assert collective_bytes(add.as_text()) == 0
    assert collective_bytes(update.as_text()) == sent


def test_memory_is_that_of_the_programs(programs):
    add, update = (program.memory_analysis() for program in programs)
    mine = BLOCK // DEVICES
    rtol = 0.1 if jax.__version_info__ >= (0, 10, 2) else 0.125  # older XLA takes more
    assert_allclose(add.temp_size_in_bytes, add_bytes(K, mine, D), rtol=rtol)
    assert_allclose(update.temp_size_in_bytes, update_bytes(K, D), rtol=rtol)
    parts = memory_of(K, D, mine, platform="cpu")
    # one curve and one block are its arguments, beside the sums
    expected = parts["curves"] / 2 + parts["sums"] + parts["blocks"] / 2
    assert_allclose(add.argument_size_in_bytes, expected, rtol=0.01)


def test_operations_are_those_of_the_program():
    """Of a tile and a block of lines, whose loops are none."""
    n, k, d = 512, 256, 256
    codewords: Any = jax.ShapeDtypeStruct((k, d), jnp.float32)
    x = jax.ShapeDtypeStruct((n, d), jnp.float32)
    found: Any = jax.jit(project).lower(Curve(codewords), x).compile().cost_analysis()
    assert_allclose(found["flops"], 2 * n * k * d, rtol=0.1)


def test_seconds_are_near_what_an_h200_took():
    """From 256 codewords on within a third; for fewer, where launches count, within two thirds."""
    results = {
        name: json.loads((RESULTS / "accelerator" / f"{name}.json").read_text())
        for name in ("projection", "fits")
    }
    ratios = {"few": [], "many": [], "rounds": []}
    for row in results["projection"]["rows"]:
        if row.get("who") == "ours":
            numbers = row["N"], row["D"], row["K"]
            found = 1e3 * projecting(CHIPS["h200"], row["products"], *numbers)
            ratios["few" if row["K"] < 256 else "many"].append(found / row["ms"])
    n, d = (results["fits"]["settings"][name] for name in "ND")
    for row in results["fits"]["rows"]:
        if row["what"] == "round" and "ms" in row:
            options: Any = {"precision": row["products"], "samples": n, "block": n}
            found = plan((n, d), 2 ** row["bits"], CHIPS["h200"], **options)
            ratios["rounds"].append(1e3 * (found.computing + found.solving) / row["ms"])
    assert min(map(len, ratios.values())) >= 3
    assert 0.6 < min(ratios["few"]) < max(ratios["few"]) < 1.5
    assert 0.75 < min(ratios["many"]) < max(ratios["many"]) < 1.33
    assert 0.6 < min(ratios["rounds"]) < max(ratios["rounds"]) < 1.5


def test_the_bound_changes_where_it_says():
    latents, k = (10**9, 512), 4096
    for chip, chips in (("h100", 1), ("v5e", 256)):
        found = plan(latents, k, CHIPS[chip], chips=chips, samples=10**9)
        assert found.bound == "reading"
        fast = plan(latents, k, CHIPS[chip], chips=chips, samples=10**9, read_rate=found.rate)
        assert_allclose(fast.reading, fast.computing)
        many = plan(latents, round(found.codewords), CHIPS[chip], chips=chips, samples=10**9)
        assert_allclose(many.reading, many.computing, rtol=1e-3)


def test_chips_and_hosts_share_what_there_is():
    one, eight = (plan((10**9, 512), 4096, CHIPS["h100"], chips=c) for c in (1, 8))
    assert one.sent == one.sending == 0
    assert 7 < one.computing / eight.computing < 8
    assert one.read == eight.read == 2 * plan((10**9, 512), 4096, CHIPS["h100"], hosts=2).read
    assert plan((10**9, 512), 4096, CHIPS["h100"], itemsize=2).read == one.read / 2
    assert plan((10**3, 512), 4, CHIPS["h100"]).samples == 1000


@pytest.mark.parametrize(("latents", "codewords"), [((0, 3), 4), ((9, 3), 0)])
def test_numbers_below_one_are_refused(latents, codewords):
    with pytest.raises(ValueError, match="expected 1 or more"):
        plan(latents, codewords, CHIPS["h100"])


def test_the_command_line_prints_it(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros((1000, 8), np.float16))
    assert main(["plan", str(tmp_path / "x.npy"), "--bits", "4"]) == 0
    said = capsys.readouterr().out
    assert "1,000 latents of 8 float16 numbers, 16 kB; 16 codewords; 1 x NVIDIA H100 SXM" in said
    options = ["--latents", "1e9x512", "--bits", "16", "--chip", "v5e", "--chips", "256"]
    assert main(["plan", *options]) == 0
    said = capsys.readouterr().out
    assert "1,000,000,000 latents of 512 float32 numbers, 2.05 TB; 65,536 codewords" in said
    assert "each chip sends" in said
    assert "LeastSquares(block=262144)" in said
