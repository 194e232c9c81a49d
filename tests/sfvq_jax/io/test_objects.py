"""Files at URIs: curves that are put and read, and what is said of a store that refuses."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sfvq_jax import Curve, CurveRecord, load_curve, save_curve
from sfvq_jax.io import store
from sfvq_jax.io.checkpoints import Checkpoints
from sfvq_jax.io.objects import read_object
from sfvq_jax.io.output import check_free
from sfvq_jax.io.positions import write_positions
from sfvq_jax.io.store import open_store

X = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
CURVE = Curve(X[:8])


def opened_checkpoints(place, **description):
    with Checkpoints.open(f"{place}/states", description, 0):
        pass


class TestCurve:
    def test_is_read_as_it_was_written(self, s3):
        path = f"{s3}/curves/c.npz"
        record = CurveRecord(CURVE, "w", "a" * 64, {"bits": 3})
        save_curve(path, record)
        found = load_curve(path)
        assert_array_equal(found.curve.codewords, CURVE.codewords)
        assert found[1:4] == record[1:4]
        with pytest.raises(FileExistsError, match=r"c\.npz exists already: .*overwrite=True"):
            save_curve(path, record)
        save_curve(path, CurveRecord(Curve(X[:4])), overwrite=True)
        assert load_curve(path).curve.num_codewords == 4

    def test_a_damaged_one_and_none_are_named(self, s3):
        open_store(f"{s3}/curves/").write("text.npz", b"no curve").result()
        with pytest.raises(
            ValueError, match=r"s3://.*/text\.npz is no curve file, or a damaged one"
        ):
            load_curve(f"{s3}/curves/text.npz")
        with pytest.raises(FileNotFoundError, match=r"there is no curve file s3://.*/none\.npz"):
            load_curve(f"{s3}/curves/none.npz")

    def test_one_that_another_process_has_written_meanwhile_stays(self, s3, monkeypatch):
        path = f"{s3}/curves/raced.npz"
        monkeypatch.setattr("sfvq_jax.io.objects.is_object", lambda uri: False)
        save_curve(path, CurveRecord(CURVE))
        with pytest.raises(FileExistsError, match="was written meanwhile by another process"):
            save_curve(path, CurveRecord(Curve(X[:4])))
        assert load_curve(path).curve.num_codewords == 8


def test_a_state_is_named_as_soon_as_it_is_written(s3):
    place = f"{s3}/named"
    with Checkpoints.open(place, {}, 1e9) as checkpoints:
        checkpoints.save({"x": jnp.zeros(4)}, {"number": 0})
        for _ in range(1000):
            assert not checkpoints.due()
            if json.loads(read_object(f"{place}/fit.json") or "")["states"]:
                break
            time.sleep(0.01)
        else:
            pytest.fail("it was not named before the next save")


WRITES = {
    "a curve": lambda place: save_curve(f"{place}/c.npz", CurveRecord(CURVE), overwrite=True),
    "a curve that is read": lambda place: load_curve(f"{place}/c.npz"),
    "a check": lambda place: check_free(f"{place}/c.npz", overwrite=True),
    "a checkpoint": opened_checkpoints,
    "positions": lambda place: write_positions(f"{place}/p.zarr", CURVE, X),
}


class Refusing(BaseHTTPRequestHandler):
    """A server that denies everything."""

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = answer

    def log_message(self, *words):
        pass


@pytest.mark.parametrize("what", WRITES)
class TestRefused:
    def said(self, what, place):
        with pytest.raises(OSError, match="s3://") as refusal:
            WRITES[what](place)
        text = str(refusal.value)
        assert place in text
        assert "\n" not in text
        return text

    def test_where_there_is_no_bucket(self, s3, what):
        assert "there is no bucket elsewhere" in self.said(what, "s3://elsewhere/run")

    def test_where_access_is_denied(self, s3, what, monkeypatch):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        assert "access is denied" in self.said(what, "s3://bucket/run")
        server.shutdown()
        server.server_close()

    def test_where_nobody_answers(self, s3, what, monkeypatch):
        monkeypatch.setattr(store, "RETRIES", {"max_retries": 1, "initial_delay": "1ms"})
        store.context.cache_clear()
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert "the server did not answer" in self.said(what, "s3://bucket/run")
        store.context.cache_clear()


def test_a_folder_of_files_is_written_to_a_disk_only(s3):
    with pytest.raises(
        ValueError, match="found is to be a folder of files, which only a disk holds"
    ):
        check_free(f"{s3}/found", marker="directions.json")


def overtaken(place):
    """A fit that saves after another one has begun at its place."""
    with Checkpoints.open(f"{place}/states", {}, 0) as checkpoints:
        opened_checkpoints(place)
        checkpoints.save({"x": jnp.zeros(4)}, {"number": 9})


class Google(BaseHTTPRequestHandler):
    """What TensorStore asks of Google's JSON API, over a dict: {name: (generation, data)}."""

    objects: dict[str, tuple[int, bytes]]
    lock = threading.Lock()

    def answer(self):
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        name = query.get("name") or unquote(url.path.partition("/o/")[2])
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.lock:
            generation, stored = self.objects.get(name, (0, b""))
            if int(query.get("ifGenerationMatch", generation)) != generation:
                self.send(412)
            elif self.command == "POST":
                generation = 1 + max((known for known, _ in self.objects.values()), default=0)
                self.objects[name] = generation, data
                self.send(200, json.dumps({"name": name, "generation": str(generation)}).encode())
            elif not name:
                first, end = query.get("startOffset", ""), query.get("endOffset", "\U0010ffff")
                names = sorted(name for name in self.objects if first <= name < end)
                self.send(200, json.dumps({"items": [{"name": name} for name in names]}).encode())
            elif not generation:
                self.send(404)
            elif self.command == "DELETE":
                del self.objects[name]
                self.send(204)
            elif query.get("ifGenerationNotMatch") == str(generation):
                self.send(304)
            else:
                self.send(200, stored, generation)

    do_GET = do_POST = do_DELETE = answer

    def send(self, status, body=b"", generation=0):
        self.send_response(status)
        self.send_header("x-goog-generation", str(generation))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.fixture
def gs(monkeypatch):
    """A bucket, as "gs://bucket", of a server on this machine that speaks as Google's do."""
    Google.objects = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Google)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "some")
    yield "gs://bucket"
    server.shutdown()
    server.server_close()


class TestGoogle:
    """All in one test: TensorStore reads only once in a process where the server is."""

    def test_curves_positions_and_checkpoints_go_there_too(self, gs):
        save_curve(f"{gs}/c.npz", CurveRecord(CURVE))
        assert_array_equal(load_curve(f"{gs}/c.npz").curve.codewords, CURVE.codewords)
        with pytest.raises(FileExistsError, match=r"gs://bucket/c\.npz exists already"):
            save_curve(f"{gs}/c.npz", CurveRecord(CURVE))
        write_positions(f"{gs}/p.zarr", CURVE, X)
        assert {name for name in Google.objects if name != "c.npz"} == {
            "p.zarr/zarr.json",
            "p.zarr/c/0/0",
        }
        place, wanted = f"{gs}/states", {"x": jnp.zeros(4)}
        for number in range(4):
            with Checkpoints.open(place, {}, 0) as checkpoints:
                restored = checkpoints.restore(lambda about: wanted)
                if number:
                    assert restored is not None
                    assert_array_equal(restored[0]["x"], jnp.full(4, number - 1.0))
                    assert restored[1] == {"number": number - 1}
                checkpoints.save({"x": jnp.full(4, float(number))}, {"number": number})
        with pytest.raises(
            ValueError, match="states keeps another fit: its bits is None, and here"
        ):
            opened_checkpoints(gs, bits=3)
        with pytest.raises(OSError, match="another fit is at work in gs://bucket/states"):
            overtaken(gs)
