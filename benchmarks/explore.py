"""Is the page to walk a curve fluid? Requests as dragging makes them, and pictures in a browser.

    python -m benchmarks.explore
    python -m benchmarks.explore --quick  # a trial of few requests, nothing saved

For both bundled generators a curve of 64 codewords is served on loopback, on two cores. Another
process sends 2,000 requests for the image at a position and six seeds, in the ways in which people
drag: slowly, fast, to and fro, in jumps, by a slider. Of most, two are under way at any time, as
the page keeps them; the others come eight at once, and the server drops those that were overtaken.
Its memory is read before and after. Then the scrubber is dragged in headless Chromium for some
seconds, and what the page paints is counted; it shares the two cores.
"""

import argparse
import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ports
from benchmarks.report import report, use_cores
from sfvq_jax import CurveRecord, fit
from sfvq_jax.cli.common import with_statistics
from sfvq_jax.explore.export import export_page
from sfvq_jax.explore.server import Explorer, app_of, bound, server_of
from sfvq_jax.explore.subject import SEEDS, Subject
from sfvq_jax.interpret import load_scorers

MODELS = {"fashion_mnist": None, "fashion_mnist_biggan": "linear"}  # -> space
BITS = 6
REQUESTS = 2000
UNDER_WAY = 2
BURST = 8  # requests that are sent at once, every so often
SECONDS = 5.0  # of dragging in the browser
TOKEN = "benchmark"
# moves a pointer that is down once a frame, to and fro, and tells the pictures painted a second
DRAG = """([left, width, seconds]) => new Promise((resolve) => {
  const began = performance.now();
  count = 0;
  const step = () => {
    const passed = (performance.now() - began) / 1000;
    if (passed > seconds) return resolve(count / passed);
    const clientX = left + width * (0.5 - 0.5 * Math.cos(2 * passed));
    const move = new PointerEvent("pointermove", { clientX });
    document.getElementById("scrubber").dispatchEvent(move);
    requestAnimationFrame(step);
  };
  step();
})"""
QUIETLY = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)  # port; sends the requests
    parser.add_argument("--requests", type=int, default=REQUESTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client is not None:
        print(json.dumps(drag(options.client, options.requests, 2**BITS - 1)))
        return
    use_cores(2)
    requests = 200 if options.quick else REQUESTS
    rows = [measure(name, space, requests) for name, space in MODELS.items()]
    report(
        "explore",
        {"The page of 64 codewords": rows},
        packages=["jax", "starlette", "uvicorn"],
        save=not options.quick,
        requests=requests,
        seconds_of_dragging=SECONDS,
    )


def measure(name: str, space: str | None, requests: int) -> dict[str, Any]:
    generator = ports.load(ports.bundled(name))
    model: Any = generator if space is None else generator.space(space)
    curve = fit(jax.random.key(0), model, bits=BITS).curve
    scorers = load_scorers(ports.BUNDLED / "fashion_mnist_scorers.npz")
    find, judge = with_statistics(scorers, model)
    record = CurveRecord(curve, model.latent_space, model.model_hash)
    subject = Subject(
        model, record, find, judge, scorers.classes, model_name=name, curve_name="curve.npz"
    )
    began = time.perf_counter()
    explorer = Explorer(subject)
    started = time.perf_counter() - began
    with contextlib.closing(explorer), serving(explorer, TOKEN) as port:
        client = [sys.executable, "-m", "benchmarks.explore", "--client", str(port)]
        subprocess.run([*client, "--requests", "100"], check=True, capture_output=True)
        before = resident()
        told = subprocess.run(
            [*client, "--requests", str(requests)], check=True, capture_output=True, text=True
        )
        after = resident()
        pictures = pictures_a_second(port)
    load = json.loads(told.stdout)
    began = time.perf_counter()
    page = export_page(subject)
    return {
        "generator": name,
        "requests": requests,
        "p50, ms": load["p50"],
        "p95, ms": load["p95"],
        "answered a second": load["rate"],
        "overtaken": load["overtaken"],
        "memory before, MiB": before,
        "after, MiB": after,
        "pictures a second, dragging": pictures,
        "start, s": started,
        "export, s": time.perf_counter() - began,
        "file, MB": len(page.encode()) / 1e6,
    }


@contextlib.contextmanager
def serving(explorer: Explorer, token: str) -> Iterator[int]:
    """The port at which a page is served meanwhile."""
    with bound("127.0.0.1", 0) as listener:
        server = server_of(app_of(explorer, token))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def resident() -> float:
    """MiB of this process in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def views(count: int, last: float) -> list[dict[str, Any]]:
    """What dragging asks for, in five ways one after another."""
    random, ways = np.random.default_rng(0), []
    t = np.linspace(0, 1, count // 5 + 1)
    for position in (
        last * (0.3 + 0.1 * t),  # slowly
        last * t,  # fast
        last * (0.5 + 0.2 * np.sin(40 * t)),  # to and fro
        random.uniform(0, last, len(t)),  # in jumps
        np.full(len(t), 0.42 * last),  # and by the slider of the strength
    ):
        ways += [{"position": float(place), "along": 2.0} for place in position]
    for view, along in zip(ways[4 * len(t) :], 4 * np.sin(20 * t), strict=True):
        view["along"] = float(along)
    common = {"seed": 0, "count": SEEDS, "truncation": 0.5, "side": 340}
    return [common | view for view in ways[:count]]


def drag(port: int, count: int, last: float) -> dict[str, float]:
    """Sends requests, and tells how long answers took."""
    asked = views(count, last)
    local = threading.local()

    def ask(view: dict[str, Any], page: str) -> tuple[float, int]:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"content-type": "application/json"}
        began = time.perf_counter()
        body = json.dumps(view | {"page": page})
        local.connection.request("POST", f"/{TOKEN}/picture", body, headers)
        answer = local.connection.getresponse()
        answer.read()
        assert answer.status in (200, 204), answer.status
        return time.perf_counter() - began, answer.status

    burst = asked[: count // 5]
    steady = asked[count // 5 :]
    with ThreadPoolExecutor(UNDER_WAY) as pool:
        began = time.perf_counter()
        # each of those under way is of a page of its own, so that all are rendered
        pages = [f"page {i % UNDER_WAY}" for i in range(len(steady))]
        answers = list(pool.map(ask, steady, pages))
        seconds = time.perf_counter() - began
    with ThreadPoolExecutor(BURST) as pool:
        dropped = list(pool.map(ask, burst, ["one page"] * len(burst)))
    times = np.array([each for each, status in answers if status == 200])
    overtaken = sum(status == 204 for _, status in [*answers, *dropped])
    return {
        "p50": float(np.percentile(times, 50)) * 1e3,
        "p95": float(np.percentile(times, 95)) * 1e3,
        "rate": len(times) / seconds,
        "overtaken": overtaken,
    }


def pictures_a_second(port: int) -> float | None:
    """What headless Chromium paints while the scrubber is dragged; None without it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIETLY)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"http://127.0.0.1:{port}/{TOKEN}/")
        page.wait_for_selector("body[data-ready]")
        page.wait_for_timeout(2000)
        page.evaluate("count = 0; document.addEventListener('picture', () => count++)")
        box = page.locator("#tracks").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 150, box["y"] + 40)
        page.mouse.down()
        rate = page.evaluate(DRAG, [box["x"] + 150, box["width"] - 200, SECONDS])
        page.mouse.up()
        browser.close()
    return rate


if __name__ == "__main__":
    main()
