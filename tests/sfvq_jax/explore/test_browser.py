"""The page in a real browser, live and as one file."""

import argparse
import base64
import contextlib
import io
import json
import re
import shlex
import shutil
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import ports
from sfvq_jax import CurveRecord, LeastSquares, fit, save_curve
from sfvq_jax.cli import main
from sfvq_jax.cli.edit import add_edit
from sfvq_jax.explore import survey
from sfvq_jax.explore.export import MOST_BYTES, export_page
from sfvq_jax.explore.subject import Subject
from sfvq_jax.interpret import load_direction, load_scorers
from sfvq_jax.io.label_file import (
    Label,
    agreeing_lines,
    codeword_labels,
    labels_path,
    load_labels,
)
from sfvq_jax.views import Page

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
pytest.importorskip("sfvq_jax.explore.server", reason="the live page takes the extra [explore]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, as Debian's package")

QUIETLY = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
CODEWORDS = 12


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIETLY)
        yield opened
        opened.close()


@contextlib.contextmanager
def serving(explorer):
    """The link of a page that is served meanwhile."""
    from benchmarks import explore  # which takes the extra

    with explore.serving(explorer, "token") as port:
        yield f"http://127.0.0.1:{port}/token/"


@pytest.fixture(scope="module")
def link(explorer):
    with serving(explorer) as url:
        yield url


@pytest.fixture(scope="module")
def exported(subject, tmp_path_factory, evil):
    path = tmp_path_factory.mktemp("export") / "map.html"
    labels = [Label(2, 2, f"hat {evil}"[:100])]
    Page(export_page(subject, labels=labels, limits=True)).save(path)
    return path


@contextlib.contextmanager
def opened(browser, url, **settings):
    """A page, once it is ready; what goes wrong on it or asks another server fails the test."""
    context = browser.new_context(viewport={"width": 1300, "height": 900}, **settings)
    page, wrong, asked = context.new_page(), [], []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.wait_for_selector("body[data-ready]")
    settle(page)
    yield page
    assert wrong == []
    here = url.split("#")[0]
    assert [each for each in asked if not each.startswith((here, "data:", "blob:"))] == []
    assert page.evaluate("window.evil") is None
    context.close()


def settle(page):
    """Until the address tells where the page is."""
    page.wait_for_timeout(450)


def pixels(page, canvas="#picture"):
    picture = page.eval_on_selector(canvas, "canvas => canvas.toDataURL().split(',')[1]")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"), int).ravel()


def position(page):
    """Once what was done before is drawn, which waits for the next frame."""
    page.evaluate("new Promise((drawn) => requestAnimationFrame(() => drawn(null)))")
    return float(page.get_attribute("#scrubber", "aria-valuenow"))


def drag(page, canvas, start, stop):
    """From one share of the width to another."""
    box = page.locator(canvas).bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], y)
    page.mouse.down()
    for share in np.linspace(start, stop, 12):
        page.mouse.move(box["x"] + share * box["width"], y)
    page.mouse.up()


@pytest.fixture(params=["live", "one file"])
def url(request):
    if request.param == "live":
        return request.getfixturevalue("link")
    return request.getfixturevalue("exported").as_uri()


def test_scrubbing_shows_the_image_at_the_position(browser, url, subject):
    with opened(browser, url) as page:
        before = pixels(page)
        drag(page, "#tracks", 0.2, 0.7)
        settle(page)
        assert position(page) > 5
        after = pixels(page)
        assert abs(after - before).max() > 30
        drag(page, "#film", 0.5, 0.55)  # the film is pulled to the right: back
        settle(page)
        assert 5 < position(page) < CODEWORDS - 1
        page.fill("#position", "3")
        page.press("#position", "Enter")
        settle(page)
        image = np.asarray(subject.model.render(subject.curve.codewords[3:4]))[0, ..., 0]
        assert abs(pixels(page) - (image.ravel() * 127.5 + 127.5)).mean() < 6


def test_keys_move_along_the_curve_and_screen_readers_are_told(browser, url):
    with opened(browser, url) as page:
        page.focus("#scrubber")
        for key, place in {
            "ArrowRight": 0.1, "Shift+ArrowRight": 1, "PageUp": 9, "ArrowLeft": 8.9,
            "Shift+ArrowLeft": 8, "End": 11, "Home": 0,
        }.items():  # fmt: skip
            page.keyboard.press(key)
            page.wait_for_timeout(40)
            assert position(page) == place
        said = page.get_attribute("#scrubber", "aria-valuetext")
        assert said.startswith("0, nearest codeword 0, left")
        names = page.eval_on_selector_all(
            "button, input, select, summary, [role=slider], [role=img]",
            "all => all.filter(e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length))",
        )
        assert names == []  # all have a name
        page.keyboard.press(" ")
        page.wait_for_timeout(400)
        page.keyboard.press(" ")
        assert position(page) > 0.1


def test_before_and_after_differ_and_the_address_restores_all(browser, url):
    with opened(browser, url) as page:
        page.click("#table tbody tr:first-child button[title='add to the stack']")
        page.focus("#along")
        page.keyboard.press("Home")
        page.focus("#scrubber")
        page.keyboard.press("PageUp")
        settle(page)
        after = pixels(page, "#seeds canvas")
        page.keyboard.press("b")
        page.wait_for_timeout(150)
        before = pixels(page, "#seeds canvas")
        assert abs(after - before).max() > 20
        page.keyboard.press("b")
        settle(page)
        hash = page.evaluate("location.hash")
        assert re.search(r"position=8&.*along=-[24]&.*edit=direction:0\*2@0-0", hash)
        shown = page.inner_text("#stack")
    with opened(browser, url + hash) as page:
        assert np.array_equal(pixels(page, "#seeds canvas"), after)
        assert position(page) == 8
        assert page.inner_text("#stack") == shown
        page.click("#stack button:has-text('remove')")
        settle(page)
        assert "edit=" not in page.evaluate("location.hash")


@pytest.mark.parametrize("hash", ["#position=1e9&edit=line:99*2@0-1", "#layers=9-9&seed=-1", "#%"])
def test_addresses_that_make_no_sense_are_ignored(browser, link, hash):
    with opened(browser, link + hash) as page:
        assert position(page) == 0


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A curve of 64 codewords of the bundled StyleGAN2: its page, its file, and what the bundled
    scorer calls its codewords."""
    from sfvq_jax.explore.server import Explorer

    model: Any = ports.load(ports.bundled("fashion_mnist"))
    solver = LeastSquares(rounds=2, samples="all")
    curve = fit(jax.random.key(0), model.sample(jax.random.key(1), 4096), bits=6, solver=solver)
    record = CurveRecord(curve.curve, model.latent_space, model.model_hash)
    file = tmp_path_factory.mktemp("generated") / "curve.npz"
    save_curve(file, record)
    scorers = load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    subject = Subject(model, record, scorers.find, scorers.judge, scorers.classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "SLOWEST", 0.0)  # no line is measured, which takes long
        explorer = Explorer(subject, file)
    scores = np.asarray(scorers.find(model.render(curve.curve.codewords)))
    columns = [scorers.find.index(name) for name in scorers.classes]
    yield explorer, file, [scorers.classes[c] for c in scores[:, columns].argmax(1)]
    explorer.close()


def test_a_stranger_labels_64_codewords_which_gives_a_labelled_dataset(
    browser, generated, tmp_path
):
    explorer, file, names = generated
    given = []
    with serving(explorer) as link, opened(browser, link) as page:
        for name in names:  # as fast as keys can be pressed
            page.focus("#scrubber")
            if name in given[:9]:
                page.keyboard.press(str(1 + given.index(name)))
                continue
            page.keyboard.press("l")
            page.keyboard.type(name)
            page.keyboard.press("Enter")
            given += [] if name in given else [name]
        told = page.locator("#labels-told")
        sync_api.expect(told).to_contain_text("64 of 64 codewords labelled")
        for _ in range(100):
            if len(explorer.labels.labels) == 64:
                break
            page.wait_for_timeout(50)
    hash = explorer.labels.curve_sha256
    labels = load_labels(labels_path(file), curve_sha256=hash, num_lines=63).labels
    assert codeword_labels(labels, 64) == names

    words = f"--labels {labels_path(file)} --count 128 -o {tmp_path}/labelled.npz"
    assert main(["augment", "fashion_mnist", str(file), *words.split()]) == 0
    judge: Any = ports.load(ports.bundled("fashion_mnist_classifier"))
    with np.load(tmp_path / "labelled.npz") as made:
        said = np.asarray(judge(made["images"] / np.float32(127.5) - 1)[0]).argmax(1)
        drawn = np.array(json.loads(str(made["manifest"]))["names"])[made["labels"]]
    assert len(set(drawn)) >= 4
    purity = (np.array(judge.class_names)[said] == drawn).mean()
    assert purity > 0.75  # .97 of ten classes by benchmarks.labels


def test_labels_are_given_by_the_keyboard_undone_and_there_again(browser, link, explorer):
    with opened(browser, link) as page:
        page.keyboard.press("l")
        for text in ("left", "<b>right</b>"):
            page.keyboard.type(text)
            page.keyboard.press("Enter")
        assert position(page) == 2
        page.keyboard.press("Control+z")  # of the text field itself
        page.focus("#scrubber")
        for k in range(2, CODEWORDS):
            page.keyboard.press("1" if k < 6 else "2")
        page.keyboard.press("Control+z")
        page.keyboard.press("2")
        labelled = "12 of 12 codewords labelled, 8 lines agree; kept in "
        sync_api.expect(page.locator("#labels-told")).to_contain_text(labelled)
        told = page.inner_text("#labels-told")
        file = told.split("kept in ")[1]
        with page.expect_download() as csv:
            page.click("#labels-csv")
        assert '6,6,"<b>right</b>",0' in csv.value.path().read_text()
    found = load_labels(file, curve_sha256=explorer.labels.curve_sha256, num_lines=11)
    lines = agreeing_lines(found.labels, 11)
    assert lines == {"<b>right</b>": [6, 7, 8, 9, 10], "left": [2, 3, 4]}
    with opened(browser, link) as page:  # they are there again
        assert page.inner_text("#labels-told").startswith("12 of 12")
        page.check("#leave-out")
        page.select_option("#target", "line")
        page.fill("#position", "7.5")
        page.press("#position", "Enter")
        page.click("#label-form button[type=submit]")
        sync_api.expect(page.locator("#labels li.left-out")).to_have_count(1)
        assert ", 8 lines agree" not in page.inner_text("#labels-told")
        page.click("#undo")
        sync_api.expect(page.locator("#labels li.left-out")).to_have_count(0)


def test_labels_of_a_file_stay_in_the_browser(browser, exported, evil):
    with opened(browser, exported.as_uri()) as page:
        assert page.locator("#labels li").inner_text().startswith(f"2 hat {evil}"[:40])
        page.keyboard.press("l")
        page.keyboard.type("cap")
        page.keyboard.press("Enter")
        sync_api.expect(page.locator("#labels li")).to_have_count(2)
        page.wait_for_function("localStorage.length > 0")
        page.reload()
        page.wait_for_selector("body[data-ready]")
        sync_api.expect(page.locator("#labels li")).to_have_count(2)
        with page.expect_download() as saved:
            page.click("#labels-json")
        content = json.loads(saved.value.path().read_text())
        assert [label["text"] for label in content["labels"]][1] == "cap"


def test_what_is_copied_makes_the_same_view(browser, link):
    with opened(
        browser, f"{link}#position=3.2&along=1.5&layers=0-0&seed=7&photograph=none"
    ) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.click("#copy-command")
        page.wait_for_timeout(100)
        words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
        assert words[:2] == ["sfvq-jax", "edit"]
        command = argparse.ArgumentParser()
        command.set_defaults(outputs=())
        add_edit(command)
        options = command.parse_args(words[2:])
        assert (options.line, options.layers, options.strength) == (3, (0, 0), [1.5])
        assert (options.seeds, options.truncation) == ([7, 8, 9, 10, 11, 12], 0.5)
        page.click("#copy-python")
        page.wait_for_timeout(100)
        compile(page.evaluate("navigator.clipboard.readText()"), "copied", "exec")
        page.click("#copy-link")
        page.wait_for_timeout(100)
        assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_photographs_are_chosen_moved_and_copied(browser, link):
    with opened(browser, f"{link}#position=3.2&along=1.5") as page:
        assert page.locator("#seeds canvas:visible").count() == 3
        assert page.locator("#view-note").inner_text().startswith("photographs me, you")
        first = pixels(page, "#seeds canvas:nth-child(2)")
        page.select_option("#photograph", "1")
        settle(page)
        assert np.array_equal(pixels(page, "#seeds canvas"), first)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.click("#copy-command")
        page.wait_for_timeout(100)
        words = page.evaluate("navigator.clipboard.readText()")
        assert words.endswith("--latents us.npz --rows 2,5,0 -o edited/")
        page.click("#copy-python")
        page.wait_for_timeout(100)
        copied = page.evaluate("navigator.clipboard.readText()")
        compile(copied, "copied", "exec")
        assert 'jnp.load("us.npz")["latents"]' in copied
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.input_value("#photograph") == "1"
        page.select_option("#moved", "seeds")
        assert page.locator("#seeds canvas:visible").count() == 6


def test_a_direction_is_saved_as_edit_reads_it(browser, url, subject, tmp_path):
    with opened(browser, f"{url}#edit=line:4*1@1-1") as page:
        with page.expect_download() as saved:
            page.click("#stack button:has-text('save direction')")
        saved.value.save_as(tmp_path / "line.json")
    record = load_direction(tmp_path / "line.json")
    assert np.allclose(record.direction.vector, subject.lines[4], atol=1e-6)
    assert record.direction.layers == (1, 1)
    assert np.isclose(record.direction.unit, subject.line_units[4], rtol=1e-4)
    assert (record.space, record.model_hash) == ("spots-z", subject.model.model_hash)


def test_the_table_is_searched_and_sorted_and_a_line_is_measured(browser, url):
    with opened(browser, f"{url}#position=5.5") as page:
        page.select_option("#kind", "lines")
        assert page.locator("#table tbody tr").count() == CODEWORDS - 1
        page.fill("#search", "line 10")
        assert page.locator("#table tbody tr").count() == 1
        page.fill("#search", "")
        page.click("#table th button:has-text('effect')")
        shown = page.locator("#table tbody td:nth-child(3)").all_inner_texts()
        effects = [float(text) for text in shown]
        assert effects == sorted(effects, reverse=True)
        known = "–" not in page.locator("#table tbody td:nth-child(5)").all_inner_texts()
        assert known == url.startswith("file:")  # what the cards tell of entanglement
        page.wait_for_selector("#card .effects")
        assert "entangled" in page.inner_text("#card")
        assert "Line 5" in page.inner_text("#card")


def test_one_s_own_latents_are_seen_at_a_bar(browser, link):
    with opened(browser, link) as page:
        box = page.locator("#tracks").bounding_box()
        page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + box["height"] - 8)
        page.wait_for_selector("#rows:not([hidden])")
        assert re.search(r"rows \d+, .*nearest to the curve", page.inner_text("#rows-told"))


def test_the_heat_map_leads_to_a_codeword(browser, url):
    with opened(browser, url) as page:
        box = page.locator("#heat-frame").bounding_box()
        page.locator("#heat-frame").click(position={"x": box["width"] * 7.5 / 12, "y": 5})
        page.wait_for_timeout(60)
        assert position(page) == 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser, link, scheme):
    with opened(browser, link, color_scheme=scheme) as page:
        page.set_viewport_size({"width": 360, "height": 740})
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = int(re.search(r"\d+", ground)[0]) > 128
        assert light == (scheme == "light")


def test_the_file_is_small_and_may_ask_nothing_of_a_network(exported):
    text = exported.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert "default-src 'none'" in text
    assert re.findall(r"<script[^>]*\bsrc=|https?://(?!www\.w3\.org)", text) == []


def test_a_notebook_shows_it_in_a_frame(browser, exported, tmp_path):
    page = Page(exported.read_text(encoding="utf-8"))
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html>{page._repr_html_()}", encoding="utf-8")
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(notebook.as_uri())
    frame = tab.frame_locator("iframe")
    frame.locator("body[data-ready]").wait_for()
    frame.locator("#scrubber").press("End")
    tab.wait_for_timeout(100)
    assert frame.locator("#scrubber").get_attribute("aria-valuenow") == "11"
    context.close()
