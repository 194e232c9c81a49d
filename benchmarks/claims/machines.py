"""Claims about speed, size and safety."""

from benchmarks.claims.claim import Claim, claim, holds
from benchmarks.report import Row
from benchmarks.tables import load, means, number, per_cent, row, rows, span, together


@claim
def projection() -> Claim:
    many = [row for row in rows("projection", "ms") if row["K"] >= 1024]
    product = per_cent(max(means(many, "ours ÷ product")) - 1, decimals=1)
    faiss = per_cent(max(means(many, "ours ÷ faiss")) - 1, decimals=1)
    return Claim(
        "Is the projection fast?",
        f"from 1,024 codewords on it takes up to {product} longer than a product, and up to {faiss}"
        " longer than FAISS's search for the nearest codeword",
        {"results/projection": many[0]},
        f"from 1,024 codewords on it takes [up to {faiss} longer than FAISS](results/projection),"
        f" which only finds the nearest codeword; [{of_the_ceiling()} of an H200's"
        " ceiling](results/accelerator#gpu)",
    )


@claim
def scaling() -> Claim:
    rounds = [row for row in rows("scaling", "Traffic", program="update") if row["devices"] > 1]
    sent = 4 * (64 * 512 + 3 * 64 + 1)
    holds({row["bytes"] for row in rounds} == {sent}, "a round sends 4(K·D + 3K + 1) bytes")
    zarr = row("sources_large", "large")
    return Claim(
        "Does it scale?",
        "a round sends 4(K·D + 3K + 1) bytes, whatever the data; a zarr of"
        f" {number(zarr['GiB'])} GiB is read in {number(zarr['peak GiB'], 2)} GiB of memory",
        {"results/scaling": rounds[0], "results/sources": zarr},
        "a round sends [4(K·D + 3K + 1) bytes](results/scaling), whatever the data",
    )


@claim
def reading() -> Claim:
    rates = rows("sources_rates", "rates")
    plain = (".npy", ".fbin", ".safetensors", "HDF5", "datasets.Dataset (Arrow)")
    raw = [row for row in rates if row["container"] in plain]
    zarr = [row for row in rates if row["container"].startswith("zarr")]
    parquet = [row for row in rates if row["container"].startswith("Parquet")]
    shares = [span(means(found, "of the map")) for found in (raw, zarr, parquet)]
    speeds = [span([row["MB/s"] / 1000 for row in found]) for found in (zarr, parquet)]
    alone, fitted = (
        row("sources_soak", "soak", what=what)["s"] for what in ("read alone", "fitted from S3")
    )
    holds(abs(fitted / alone - 1) < 0.1, "a fit from S3 takes as long as reading alone")
    return Claim(
        "Is reading fast, wherever latents lie?",
        f"an `.npy`, `.fbin`, safetensors, HDF5 and Arrow at {shares[0]} of a memory map from the"
        f" cache; zarr at {shares[1]} ({speeds[0]} GB/s), Parquet at {shares[2]} ({speeds[1]}"
        " GB/s); from S3 with 30 ms of latency a fit takes as long as reading alone",
        {"results/sources": raw[0]},
    )


@claim
def plan() -> Claim:
    billion = rows("plan", "A billion")
    chips = together(dict.fromkeys(row["chips"].replace(" x ", " × ") for row in billion))
    return Claim(
        "What will a fit cost?",
        f"`sfvq-jax plan` tells it before it is paid for; its page has 10⁹ latents on {chips}",
        {"results/plan": billion[0]},
    )


@claim
def gpu() -> Claim:
    images = rows("accelerator/generators", "images/s", products="bfloat16")
    times = [
        row["ours"] / max(row[who] for who in row if who.startswith(("PyTorch", "the same")))
        for row in images
    ]
    return Claim(
        "And on a GPU?",
        f"projection in float32 at {of_the_ceiling()} of an H200's ceiling from 1,024 codewords on,"
        f" images in bfloat16 {span(times)} times as fast as PyTorch",
        {"results/accelerator": gpu_projections()[0]},
    )


def of_the_ceiling() -> str:
    """The share of a large product's rate that a projection has on a GPU."""
    highest = {"ceiling": "product of side 8192", "products": "highest"}
    (ceiling,) = (
        row["TFLOP/s"]
        for row in load("accelerator/programs")["rows"]
        if highest.items() <= row.items()
    )
    return span([row["ours highest"] / ceiling for row in gpu_projections()])


def gpu_projections() -> list[Row]:
    found = rows("accelerator/projection", "TFLOP/s", N=262144, D=512)
    return [row for row in found if row["K"] >= 1024]


@claim
def page() -> Claim:
    pages = rows("explore", "The page")
    pictures = together(f"{row['pictures a second, dragging']:.0f}" for row in pages)
    return Claim(
        "Is the page fluid?",
        f"{pictures} pictures a second while dragging in a browser on two cores; half of the"
        f" requests are answered in {span(means(pages, 'p50, ms'))} ms, 95 % in"
        f" {span(means(pages, 'p95, ms'))}",
        {"results/explore": pages[0]},
    )


@claim
def robustness() -> Claim:
    damaged, stopped = rows("fuzz", "damaged"), rows("kill", "stopped")
    cases, errors = (sum(row[column] for row in damaged) for column in ("cases", "other errors"))
    wrong = sum(row["wrong"] for row in stopped)
    return Claim(
        "What do damaged files and stopped commands do?",
        f"of {cases:,} damaged files all but {errors} were read or refused in a sentence; of"
        f" {len(stopped)} stopped commands all but {wrong} left whole outputs",
        {"reference/robustness": damaged[0]},
    )
