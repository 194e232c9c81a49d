"""The server of the live page: what it tells, what it renders, and whom it refuses."""

import contextlib
import dataclasses
import http.client
import io
import json
import threading
import time
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from sfvq_jax.explore.pictures import Pictures, Queue, parse_view
from sfvq_jax.images import render_images
from sfvq_jax.interpret import edit_latents, line_direction
from sfvq_jax.interpret.edit import Direction
from sfvq_jax.io.label_file import load_labels

server = pytest.importorskip(
    "sfvq_jax.explore.server", reason="the live page takes the extra [explore]"
)

TOKEN = "secret-token"
JSON = {"content-type": "application/json"}


class Answer(NamedTuple):
    status_code: int
    headers: dict
    content: bytes

    @property
    def text(self):
        return self.content.decode()

    def json(self):
        return json.loads(self.content)


class Client(NamedTuple):
    """Sends requests as they are written, a path with dots too."""

    port: int

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def post(self, path, content, headers):
        return self.request("POST", path, content, headers)

    def request(self, method, path, content=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        with contextlib.closing(connection):
            connection.request(method, path, content, headers or {})
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, told, answer.read())


@pytest.fixture(scope="module")
def client(explorer):
    from benchmarks.explore import serving  # which takes the extra

    with serving(explorer, TOKEN) as port:
        yield Client(port)


def post(client, path, content, **headers):
    return client.post(f"/{TOKEN}/{path}", json.dumps(content), JSON | headers)


def test_the_page_and_its_parts_are_there(client):
    page = client.get(f"/{TOKEN}/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for name in ("style.css", "main.js", "source.js", "words.js", "tracks.js", "panels.js"):
        assert client.get(f"/{TOKEN}/{name}").status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/about.json",
        "/wrong/",
        "/wrong/about.json",
        f"/{TOKEN}",
        f"/{TOKEN}x/",
        "//",
        "/%C3%A9/",
    ],
)
def test_without_the_token_nothing_is_told(client, path):
    answer = client.get(path)
    assert answer.status_code == 403
    assert "fashion" not in answer.text
    assert TOKEN not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil", ""])
def test_other_names_of_the_host_are_refused(client, host):
    assert client.get(f"/{TOKEN}/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
    ],
)  # fmt: skip
def test_other_origins_are_refused(client, headers):
    assert post(client, "labels", {"labels": [], "revision": 0}, **headers).status_code == 403
    assert client.get(f"/{TOKEN}/about.json", headers=headers).status_code == 403


def test_a_link_on_another_site_may_be_followed(client):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}
    assert client.get(f"/{TOKEN}/", headers=headers).status_code == 200
    assert post(client, "labels", {"labels": [], "revision": 0}, **headers).status_code == 403
    headers["sec-fetch-dest"] = "iframe"
    assert client.get(f"/{TOKEN}/", headers=headers).status_code == 403


def test_the_page_itself_is_let_in(client):
    headers = {"origin": f"http://{client.host}", "sec-fetch-site": "same-origin"}
    assert client.get(f"/{TOKEN}/about.json", headers=headers).status_code == 200


def test_hosts_that_were_asked_for():
    assert server.knows_host("localhost:8000", "127.0.0.1")
    assert server.knows_host("[::1]:8000", "127.0.0.1")
    assert not server.knows_host("192.168.1.5:8000", "127.0.0.1")
    assert server.knows_host("192.168.1.5:8000", "0.0.0.0")
    assert not server.knows_host("evil.example:8000", "0.0.0.0")


def test_a_token_cannot_be_guessed():
    assert len({server.new_token() for _ in range(100)}) == 100
    assert len(server.new_token()) == 24


@pytest.mark.parametrize("name", ["..%2fserver.py", "../server.py", "server.py", "x.js", ".html"])
def test_no_other_file_is_read(client, name):
    assert client.get(f"/{TOKEN}/{name}").status_code == 404


def test_what_is_known_is_told(client, subject):
    about = client.get(f"/{TOKEN}/about.json").json()
    k = subject.curve.num_codewords
    assert about["curve"]["codewords"] == k
    assert_allclose(sum(about["use"]), 1, atol=1e-4)
    assert len(about["inside"]) == len(about["places"]) == 2 * k - 1
    assert about["classes"]["of_codewords"] == [0] * (k // 2) + [1] * (k - k // 2)
    assert np.sum(about["data"]["counts"]) == 500
    assert about["directions"][0]["measured"]["entanglement"] == 0.3


def tiles(answer, count):
    assert answer.status_code == 200
    image = np.asarray(Image.open(io.BytesIO(answer.content)))
    return np.split(image, count, axis=1)


def test_images_are_those_that_edit_makes(client, subject):
    view = {
        "position": 3.25, "seed": 4, "count": 2, "truncation": 0.5, "along": 1.5, "layers": [0, 0],
        "stack": [{"id": "direction:0", "strength": -2.0, "layers": [0, 1]}], "page": "a",
    }  # fmt: skip
    here, *moved = tiles(post(client, "picture", view), 3)
    model, record = subject.model, subject.directions[0].record
    stacked = record.direction.replace(layers=(0, 1))
    line = Direction.along(line_direction(subject.curve, 3), (0, 0), subject.spread)
    point = 0.75 * subject.curve.codewords[3] + 0.25 * subject.curve.codewords[4]
    codes = edit_latents(point[None], stacked, jnp.array([-2.0]), 2)[:, 0]
    w = jnp.asarray([Pictures(subject).seed(seed, 0.5) for seed in (4, 5)])
    both = edit_latents(w, [stacked, line], jnp.array([[-2.0, 1.5]]), 2)[:, 0]
    expected = render_images(model, jnp.concatenate([codes, both]))[..., 0]
    for tile, image in zip([here, *moved], expected, strict=True):
        assert abs(tile.astype(int) - image).max() <= 1


def test_photographs_stand_in_place_of_seeds_the_first_after_the_last(client, subject):
    about = client.get(f"/{TOKEN}/about.json").json()["photographs"]
    assert (about["file"], about["rows"]) == ("us.npz", [0, 2, 5])
    view = {"position": 3.25, "count": 4, "photograph": 1, "along": 1.5, "layers": [0, 0]}
    _, *moved = tiles(post(client, "picture", view | {"page": "a"}), 5)
    line = Direction.along(line_direction(subject.curve, 3), (0, 0), subject.spread)
    codes = jnp.asarray(subject.photographs.latents[[1, 2, 0, 1]])  # one code a layer
    edited = edit_latents(codes, line, jnp.array([1.5]), 2)[:, 0]
    for tile, image in zip(moved, render_images(subject.model, edited)[..., 0], strict=True):
        assert abs(tile.astype(int) - image).max() <= 1


def test_without_photographs_none_can_be_asked_for(subject):
    alone = dataclasses.replace(subject, photographs=None)
    with pytest.raises(ValueError, match="there are none to choose from"):
        parse_view({"position": 0.0, "photograph": 0}, alone)


@pytest.mark.parametrize(
    "change",
    [
        {"position": 99}, {"position": None}, {"position": "1"}, {"count": 7}, {"seed": -1},
        {"layers": [1, 0]}, {"layers": [0, 9]}, {"along": 1e9}, {"side": 10**6}, {"page": "x" * 41},
        {"truncation": 2}, {"photograph": 3}, {"photograph": "me"}, {"stack": [{}] * 17},
        {"stack": [{"id": "line:11", "strength": 1}]},
        {"stack": [{"id": "file:../../x", "strength": 1}]},
        {"stack": [{"id": "direction:1", "strength": 1}]},
    ],
)  # fmt: skip
def test_views_that_make_no_sense_are_refused_in_a_sentence(client, change):
    view = {"position": 1.0, "page": "a", "truncation": 0.5} | change
    answer = post(client, "picture", view)
    assert answer.status_code == 400
    assert 10 < len(answer.text) < 120


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"x": NaN}', b"[" * 10**4, b"x" * 2**17])
def test_bodies_that_are_no_json_objects_are_refused(client, body):
    assert client.post(f"/{TOKEN}/picture", body, JSON).status_code == 400
    plain = {"content-type": "text/plain"}  # what a form of another site could send
    assert client.post(f"/{TOKEN}/picture", b"{}", plain).status_code == 400


def test_labels_are_on_the_disk_at_once_and_undone(client, explorer, subject, evil):
    before = client.get(f"/{TOKEN}/about.json").json()["labels"]
    label = {"start": 2, "stop": 2, "text": f"hat {evil}", "leave_out": False}
    kept = post(client, "labels", {"labels": [label], "revision": before["revision"]}).json()
    found = load_labels(kept["file"], curve_sha256=explorer.labels.curve_sha256, num_lines=11)
    assert [each._asdict() for each in found.labels] == [label]
    behind = post(client, "labels", {"labels": [], "revision": before["revision"]})
    assert behind.status_code == 409
    assert behind.json()["labels"] == [label]
    kept = post(client, "labels", {"labels": [], "revision": kept["revision"]}).json()
    found = load_labels(kept["file"], curve_sha256=explorer.labels.curve_sha256, num_lines=11)
    assert found.labels == ()


def test_labels_are_limited_in_size(client):
    long = {"start": 0, "stop": 0, "text": "x" * 101}
    assert post(client, "labels", {"labels": [long], "revision": 0}).status_code == 400
    huge = {"labels": [{"start": 0, "stop": 0, "text": "x" * 90}] * 30_000, "revision": 0}
    answer = post(client, "labels", huge)
    assert answer.status_code == 400
    assert "bytes" in answer.text


def test_a_line_is_measured(client):
    card = post(client, "card", {"line": 5, "layers": [0, 1], "page": "a"}).json()
    assert card["name"].endswith("all layers")
    mean, low, high = card["judged"]["x position"]
    assert low < mean < high
    assert mean > 0.2
    assert card == post(client, "card", {"line": 5, "layers": [0, 1], "page": "a"}).json()


def test_one_s_own_latents_are_shown_at_a_bar(client, explorer):
    data = explorer.subject.data
    answer = post(client, "rows", {"codeword": 8, "label": 1})
    rows = [int(row) for row in answer.headers["x-rows"].split(",")]
    assert (np.rint(data.positions[rows]) == 8).all()
    assert (data.of_rows[rows] == 1).all()
    assert (np.diff(data.squared_distance[rows]) >= 0).all()
    tiles(answer, len(rows))


def test_newer_work_of_a_view_takes_the_place_of_older(subject):
    queue, gate, done = Queue(), threading.Event(), []
    first = queue.put("a", gate.wait)
    while not queue.idle:  # until it is under way
        time.sleep(0.001)
    waiting = [queue.put("a", lambda i=i: done.append(i) or i) for i in range(5)]
    other = queue.put("b", lambda: "other")
    gate.set()
    assert first.result(5) is True
    assert [future.result(5) for future in waiting] == [None, None, None, None, 4]
    assert other.result(5) == "other"
    assert (done, queue.dropped) == ([4], 4)
    broken = queue.put("a", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.result(5)
    queue.close()


def test_a_program_is_compiled_once_a_number_of_images(subject):
    from sfvq_jax.explore import pictures as module

    pictures = Pictures(subject)
    places = [(0.0, 0), (0.0, 6), (1.3, 0), (1.3, 6), (2.7, 6)]
    views = [{"position": p, "count": c, "truncation": 0.5} for p, c in places]
    for view in views[:2]:
        pictures.sheet(parse_view(view, subject))
    before = module._uint8_images._cache_size()
    for view in views:
        pictures.sheet(parse_view(view, subject))
    assert module._uint8_images._cache_size() == before
