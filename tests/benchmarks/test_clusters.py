"""What the benchmark of clusters compares with, and how it judges."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from benchmarks import clusters, clusters_data, clusters_verdict
from benchmarks.clusters import FIT_TABLE, KMEANS, NEW, OLD, OldDefault, Plan, Results
from benchmarks.clusters_verdict import Estimate, acceptance, at_step, beside_front
from sfvq_jax import Curve, fit_array, project, step
from sfvq_jax.quality import health


def test_a_round_of_the_old_default_minimises_its_objective_for_fixed_places():
    x = np.array(jax.random.normal(jax.random.key(0), (200, 3)))
    curve = Curve(jax.random.normal(jax.random.key(1), (8, 3)))
    new = step(OldDefault(0.3), curve, (), jax.random.key(2), jnp.asarray(x))[0].codewords

    line, t, _ = project(curve, jnp.asarray(x))
    places = np.zeros((200, 8))
    places[np.arange(200), line], places[np.arange(200), line + 1] = 1 - t, t
    stretch = (0.3 * 200 / 8) ** 0.5 * np.diff(np.eye(8), axis=0)
    pull = (1e-4 * 200 / 8) ** 0.5
    left = np.concatenate([places, stretch, pull * np.eye(8)])
    right = np.concatenate([x, np.zeros((7, 3)), pull * np.asarray(curve.codewords)])
    assert_allclose(new, np.linalg.lstsq(left, right)[0], rtol=1e-4, atol=1e-5)


def test_the_old_default_wastes_codewords_between_far_clusters_and_the_new_one_none():
    x = clusters_data.clusters(20.0)(jax.random.key(0), 4096)
    old = fit_array(jax.random.key(1), x, bits=5, solver=OldDefault())[0]
    new = fit_array(jax.random.key(1), x, bits=5)[0]
    assert health(old, x).dead > 16
    assert health(new, x).dead == 0


@pytest.mark.parametrize("distance", [4.0, 20.0])
def test_clusters_keep_their_distances_in_the_span(distance):
    x = np.asarray(clusters_data.clusters(distance)(jax.random.key(0), 2**14))
    assert x.shape[1] == 90
    # a cluster's variance is 1 along each of 8 directions of about unit length
    centres = np.random.default_rng(0).standard_normal((10, 256)) / 16 * distance
    nearest = np.linalg.norm(centres - centres.mean(0), axis=1)
    spread = (nearest**2).mean() + 8
    assert_allclose(((x - x.mean(0)) ** 2).sum(1).mean(), spread, rtol=0.05)


def test_digits_are_of_the_class_of_the_nearest():
    data = clusters_data.digits()
    pictures = np.asarray(data.samples(0))
    assert pictures.shape == (1797, 64)
    assert data.classes is not None
    assert data.classes(pictures[:5] + 0.1).tolist() == [0, 1, 2, 3, 4]


def test_order_is_that_of_codewords_with_samples():
    line = np.arange(8.0)[:, None] * np.ones((1, 2))
    there_and_back = np.concatenate([line, line[:4] + 0.25])
    x = jnp.asarray(np.repeat(line, 10, 0), jnp.float32)
    data = clusters_data.Data(lambda seed: x, x)
    found = clusters.measure(Curve(jnp.asarray(there_and_back, jnp.float32)), x, data, True)
    assert found["dead"] == 4
    assert found["trustworthiness"] == found["continuity"] == found["neighbours"] == 1
    assert_allclose(found["perplexity"], 8, rtol=1e-5)
    assert_allclose([found["distortion"], found["to codewords"]], 0, atol=1e-6)


def test_an_estimate_has_its_interval():
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert_allclose(estimate, [2, 4.3027 / 3**0.5], rtol=1e-4)
    assert str(estimate) == "2 ± 2.5"
    assert Estimate.read(json.loads(json.dumps(estimate))) == estimate
    assert str(Estimate.of([0.25])) == "0.25"


def test_the_front_is_read_between_its_points_and_not_beyond():
    front = [(4.0, 1.0), (1.0, 3.0), (2.0, 2.0)]  # straight in the logarithm of the step
    assert_allclose(at_step(front, 8**0.5), 1.5)
    assert at_step(front, 4.1) is None
    assert at_step(front[:1], 4.0) is None


def values(*points):
    return [{"step": step, "distortion": distortion} for step, distortion in points]


def test_seeds_beyond_the_front_are_left_out():
    found = {
        OLD: values((1.0, 3.0), (1.0, 3.0)),
        f"{OLD}, μ 0.1": values((4.0, 1.0)),
        NEW: values((2.0, 1.8), (9.0, 0.5)),
    }
    (row,) = beside_front(found, OLD, NEW)
    assert row["seeds"] == "1 of 2"
    assert_allclose(row[clusters_verdict.RATIO].mean, 0.9)


def row(data, bits, method, **figures):
    figures = {name: Estimate(value, None) for name, value in figures.items()}
    return {"data": data, "bits": bits, "method": method, **figures}


def verdicts(fits, front=()):
    rows = acceptance(fits, front, OLD, NEW, KMEANS)
    return {row["what"]: row["verdict"] for row in rows}


def test_nothing_is_met_that_is_not_measured():
    assert set(verdicts([]).values()) == {"not measured"}


def test_what_is_measured_is_judged():
    fits = [
        row("far clusters", 6, OLD, dead=53, distortion=1.5),
        row("far clusters", 6, NEW, dead=0, distortion=1.05),
        row("far clusters", 6, f"{KMEANS}, ordered", distortion=1.0),
        row("W", 6, NEW, continuity=0.88),
        row("CIFAR10-10", 4, "published", distortion=0.015, step=4.2),
        row("CIFAR10-10", 4, NEW, distortion=0.0148, step=3.0),
        row("CIFAR10-10", 6, "published", distortion=0.0125, step=2.8),
        row("CIFAR10-10", 6, NEW, distortion=0.0126, step=1.7),
        row("CIFAR10-10", 6, f"{NEW}, μ 0.1", distortion=0.0124, step=3.0),
    ]
    front = [row("W", 6, NEW, **{clusters_verdict.RATIO: 1.02})]
    found = verdicts(fits, front)
    assert {what: verdict for what, verdict in found.items() if verdict != "not measured"} == {
        "far clusters: dead of 64": "met",
        "far clusters: distortion ÷ that of k-means, ordered": "met",
        "W: distortion ÷ the old front's at equal step": "not met",
        "CIFAR10-10, 4 bits: distortion at step (new default)": "met",
        "CIFAR10-10, 6 bits: distortion at step (new default, μ 0.1)": "not met",
        "W: continuity, μ 0.2": "not met",
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "RESULTS", tmp_path)
    monkeypatch.setattr("benchmarks.report.RESULTS", tmp_path)
    monkeypatch.setattr(clusters, "commit", lambda: "1234567")
    return tmp_path


def test_what_is_measured_again_takes_the_place_of_what_was(folder):
    first, other = Plan("W", 6, 5, 2, 64), Plan("far clusters", 6, 5, 2, 64)
    results = Results(save=True)
    results.add(first, [row("W", 6, OLD, dead=1.0, continuity=0.8)], [], 3)
    results.add(other, [row("far clusters", 6, OLD, dead=2.0, distortion=1.0)], [], 3)
    results = Results(save=True)
    assert results.has(first)
    assert not results.has(first._replace(seeds=3))
    assert not results.has(first._replace(bits=4))
    results.add(first, [row("W", 6, OLD, dead=4.0, continuity=0.8)], [], 3)

    content = json.loads((folder / "clusters.json").read_text())
    found = [(fit["data"], fit["dead"]) for fit in content["tables"][FIT_TABLE]]
    assert found == [("far clusters", [2.0, None]), ("W", [4.0, None])]
    assert content["settings"]["runs"]["W, 6 bits"]["commit"] == "1234567"


def test_what_was_measured_with_changes_beside_the_commit_is_measured_again(folder, monkeypatch):
    monkeypatch.setattr(clusters, "commit", lambda: "1234567 and changes")
    results = Results(save=True)
    plan = Plan("W", 6, 5, 2, 64)
    results.add(plan, [row("W", 6, OLD, dead=1.0, continuity=0.8)], [], 3)
    assert not Results(save=True).has(plan)
