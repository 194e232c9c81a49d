"""The pages whose code users will copy: it runs, and finds what is known to be true."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import sfvq_jax
from sfvq_jax import LatentModel
from sfvq_jax.interpret.comparison import trial
from sfvq_jax.interpret.directions import bench, finding

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "how-to"


def run_page(name, given=None, **changes):
    """All names after the code of a page ran, in order.

    Args:
      name: of the page.
      given: names that its code takes for the reader's own.
      changes: settings, to be quick.
    """
    text = (DOCS / name).read_text(encoding="utf-8")
    for setting, value in changes.items():
        text, found = re.subn(rf"\b({setting} ?= ?)\d+", rf"\g<1>{value}", text)
        assert found
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    names: dict = {"__name__": "page"} | (given or {})
    exec(compile(code, f"docs/how-to/{name}", "exec"), names)
    return names


PAGES = sorted(
    path
    for folder in ("docs", "examples", "benchmarks", ".")
    for path in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")
    if "generated" not in path.parts
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(path):
    text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        where, _, anchor = target.partition("#")
        if re.match(r"https?:", target):
            continue
        found = (path.parent / where).resolve() if where else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_equations_that_docstrings_name_are_there():
    named = {
        number
        for path in (ROOT / "sfvq_jax").rglob("*.py")
        for number in re.findall(r"\bequation (\d+)", path.read_text(encoding="utf-8"))
    }
    assert named
    equations = anchors(ROOT / "docs" / "explanation" / "equations.md")
    assert {f"equation-{number}" for number in named} <= equations


def anchors(path):
    """Of a page's headings, as GitHub and the site make them, and of rows of tables."""
    text = path.read_text(encoding="utf-8")
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
    return slugs | set(re.findall(r'<a id="([^"]+)"></a>', text))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """That of docs/how-to/your_model.md, in an empty folder."""
    with pytest.MonkeyPatch.context() as patch:
        # to be quick
        few = {"SPREAD_SAMPLES": 512, "SCREENED": 16, "RECOGNISED": 4, "RECOGNITION_EPOCHS": 1}
        for name, value in few.items():
            patch.setattr(trial, name, value)
        patch.setattr(finding, "SHORTLIST", 4)
        patch.setattr(bench, "STRENGTHS", (1.0, 2.0, 4.0, 8.0))
        patch.chdir(tmp_path_factory.mktemp("page"))
        return run_page("your_model.md") | {"folder": Path.cwd()}


def test_the_model_is_a_latent_model(page):
    assert isinstance(page["model"], LatentModel)


def test_its_factors_are_found_with_their_layers(page):
    right, larger = page["right"], page["larger"]
    assert (right.attribute, right.direction.layers) == ("x position", (0, 0))
    assert (larger.attribute, larger.direction.layers) == ("area", (1, 1))
    assert right.name == "more x position; layer 0"
    assert larger.name == "more area; layer 1"
    vectors = np.stack([right.direction.vector, larger.direction.vector])
    assert_allclose(page["factors"] @ vectors.T, np.eye(2), atol=0.12)
    for direction in (right, larger):
        assert direction.confirmed
        assert direction.judged[direction.attribute].agree > 0.95
        assert direction.entanglement < 0.05


def test_its_map_is_good(page):
    quality = page["quality"]
    assert quality.dead == 0
    assert quality.inside < 1.2
    assert quality.neighbour_share > 0.6
    assert quality.image_step < 0.5


def test_several_directions_are_one_edit_and_each_keeps_to_its_layers(page):
    model, find = page["model"], page["find"]
    codes = page["both"]
    low, none, high = (np.asarray(find(model.render(codes[:, i]))) for i in range(3))
    assert (high > none).all()
    assert (none > low).all()
    moved = np.asarray(codes[:, 2] - codes[:, 1])
    unit = page["right"].direction.unit, page["larger"].direction.unit
    assert_allclose(np.linalg.norm(moved, axis=-1), np.tile(2 * np.array(unit), (16, 1)), rtol=1e-4)


def test_what_is_held_stays_and_the_rest_moves(page):
    model, find, held = page["model"], page["find"], page["held"]
    z = model.sample(page["jax"].random.key(8), 64)
    moved = page["edit_latents"](z, held, jnp.array([0.0, 1.0]), model.num_layers)
    before, after = (np.asarray(find(model.render(moved[:, i]))) for i in range(2))
    position, area = (after - before).T
    assert position.min() > 0
    free = page["edit_latents"](z, page["diagonal"], jnp.array([1.0]), model.num_layers)
    freely = np.asarray(find(model.render(free[:, 0])))[:, 1] - before[:, 1]
    assert abs(area).mean() < 0.02 * abs(freely).mean()


def test_samples_have_what_was_asked_for(page):
    samples = page["samples"]
    assert (samples.scores[:, 0] > 0.2).all()
    with np.load(page["folder"] / "right.npz", allow_pickle=False) as dataset:
        assert dataset["images"].shape == (100, 32, 32, 1)
    scores = page["my_scorer"](page["model"].render(jnp.asarray(samples.latents)))
    assert (scores > 0).all()


def test_methods_are_compared_and_one_s_own_among_them(page):
    rows = {row.method: row for row in page["summary"](page["comparison"])}
    assert list(rows) == ["SFVQ", "SFVQ, pairs", "GANSpace, PCA", "axes"]
    assert rows["SFVQ, pairs"].reached.mean == 1
    layers = {edit.layers for edit in page["comparison"].edits if edit.method == "axes"}
    assert layers == {(0, 0), (1, 1)}  # what it gives directions for


def test_the_coordinate_that_controls_the_side_is_found_alone(page):
    to_the_right, to_the_left = sorted(page["run"].found, key=lambda found: found.source)
    assert to_the_right.dimensions.tolist() == to_the_left.dimensions.tolist() == [0]
    assert_allclose(to_the_right.signed, -to_the_left.signed)
    rows = {row.way: row for row in page["translation_summary"]([page["run"]])}
    assert rows["sequential"].flipped.mean > 0.9
    assert rows["random"].flipped.mean < 0.3


def test_the_direction_came_back_from_its_file(page):
    record, right = page["record"], page["right"]
    assert_allclose(record.direction.vector, right.direction.vector, rtol=1e-6)
    assert (record.name, record.space) == (right.name, "spots-z")
    assert record.direction.layers == (0, 0)
    again = page["theirs"].direction
    assert_allclose(again.vector, right.direction.vector, rtol=1e-5, atol=1e-6)
    assert_allclose(again.unit, right.direction.unit, rtol=0.1)
    assert again.layers == (0, 0)


def test_a_solver_of_one_s_own_fits_and_its_numbers_are_vmapped():
    page = run_page("your_solver.md")
    assert page["result"].curve.codewords.shape == (16, 2)
    assert page["result"].history.distortion[-1] < page["result"].history.distortion[0]
    assert (np.diff(page["steps"]) < 0).all()


def test_a_layer_is_trained_and_its_curve_serves_other_bitrates():
    with jax.numpy_dtype_promotion("standard"):  # as users have it: Adam counts in integers
        page = run_page("layer.md", steps=40)
    assert page["curve"].codewords.shape == (64, 8)
    assert page["quality"].trustworthiness > 0.7
    assert page["few_bits"].shape == (1797, 8)


def test_a_stream_is_learnt_from_block_by_block():
    page = run_page("streaming.md")
    assert page["curve"].codewords.shape == (16, 4)
    x, curves = page["x"][0], [page[name].curve for name in ("stream", "settled")]
    before = page["distortion"](page["curve"], x)
    for curve in curves:
        assert page["distortion"](curve, x) < 1.05 * before


def test_latents_are_fitted_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = run_page("sources.md")
    assert page["store"].chunk_layout.read_chunk.shape == (2048, 64)
    assert [path.name for path in tmp_path.iterdir()] == ["latents.zarr"]
    assert page["result"].curve.codewords.shape == (16, 64)


def test_curves_are_fitted_and_their_files_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    latents = np.random.default_rng(0).normal(size=(512, 2)).astype(np.float32)
    np.save("latents.npy", latents)
    mine = {"latents": latents, "weights": np.ones(512, np.float32), "np": np}
    mine["curve"] = sfvq_jax.Curve(jnp.asarray(latents[:4]))
    curve = run_page("fit.md", mine, bits=2)["result"].curve
    assert curve.codewords.shape == (4, 2)
    source = {"sfvq_jax": sfvq_jax, "key": jax.random.key(0), "source": latents}
    of_all = run_page("devices.md", source, bits=2)["result"].curve
    assert of_all.codewords.shape == (4, 2)
    sfvq_jax.save_curve("curve.npz", sfvq_jax.CurveRecord(curve))
    assert_allclose(run_page("../reference/formats.md", mine)["codewords"], curve.codewords)
