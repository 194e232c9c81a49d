"""Claims about curves: codewords, distortion, order, and the time of a fit."""

from benchmarks.claims.claim import Claim, claim, holds
from benchmarks.tables import mean, means, number, overlap, per_cent, row, rows, span


@claim
def dead_codewords() -> Claim:
    ours = [row for row in rows("clusters", "Fits", method="new default") if row["bits"] != 8]
    old = rows("clusters", "Fits", method="old default", bits=6)
    recipe = rows("clusters", "Fits", method="Adam, 65536 samples an epoch", bits=6)
    far = row("clusters", "Fits", method="new default", bits=6, data="far clusters")
    k_means = row("clusters", "Fits", method="k-means, ordered", bits=6, data="far clusters")
    holds(not any(means(ours, "dead")), "no codeword of 16 or 64 is dead")
    holds(len({row["data"] for row in ours}) == 10, "data of ten kinds were tried")
    dead, dead_before = (f"{max(means(found, 'dead')):.0f}" for found in (recipe, old))
    above = mean(far["distortion"]) / mean(k_means["distortion"]) - 1
    return Claim(
        "Does the default waste codewords?",
        "none of 16 or 64 on clusters and clouds of ten kinds, where the former default left up to"
        f" {dead_before} of 64 unused and the published recipe, with a quarter of its samples,"
        f" {dead}; distortion on far clusters is {per_cent(above)} above that of k-means",
        {"results/clusters": far},
        "[none of 16 or 64](results/clusters) on clusters and clouds of ten kinds; the published"
        f" recipe, with a quarter of its samples, left up to {dead} of 64 unused",
    )


@claim
def tradeoff() -> Claim:
    curves = rows("tradeoff", "Adam beside", front="least squares")
    lower = [row for row in curves if (row["distortion ratio"] or 1) < 1]
    shorter = [row for row in curves if (row["step ratio"] or 1) < 1]
    holds(lower == shorter, "least squares is shorter where its distortion is lower")
    return Claim(
        "Least squares or the published recipe?",
        "least squares is shorter at the same distortion, and has less distortion at the same"
        f" length, for {len(lower)} of {len(curves)} curves of the recipe",
        {"results/tradeoff": curves[0]},
    )


@claim
def seconds_of_a_fit() -> Claim:
    data = "Along CIFAR10-10, D=512, 64 codewords"
    fit = row("fit", "Whole", data=data, fit="default least squares")
    seconds = f"64 codewords of 512 dimensions in {number(fit['seconds'], 2)} s"
    times = f"{number(fit['PyTorch loop ÷ this'], 2)} times as fast as"
    return Claim(
        "How long does a fit take?",
        f"{seconds}, {times} the published recipe's PyTorch loop",
        {"results/fit": fit, "results/adam": None},
        f"[{seconds}](results/fit) on two cores, {times} the recipe's PyTorch loop",
    )


@claim
def published() -> Claim:
    four = rows("published", "Fits", bits=4, solver="least squares")
    six = rows("published", "Fits", bits=6, solver="least squares")
    light = rows("published", "Fits", bits=6, solver="least squares, μ 0.1")
    below = max(means([*four, *light], "distortion ratio")) < 1
    holds(below, "4 bits, and 6 bits with μ 0.1, are below the published distortion")
    shorter = all(row["mean step"] < row["published mean step"] for row in [*four, *light])
    holds(shorter, "their steps are shorter than the published ones")
    above = span([100 * (ratio - 1) for ratio in means(six, "distortion ratio")])
    steps = span([row["mean step"] / row["published mean step"] for row in six])
    return Claim(
        "Is it as good as the published codebooks?",
        "with 4 bits it has less distortion at shorter steps, with 6 bits and μ 0.1 too; with 6"
        f" bits and the default {above} % more at {steps} of the step",
        {"results/published": six[0]},
    )


@claim
def order() -> Claim:
    of = {row["order"]: row for row in rows("class_runs", "Order")}
    runs = {order: number(row["class runs"], 2) for order, row in of.items()}
    default = "least squares, default (μ 0.2)"
    return Claim(
        "Is the map ordered?",
        f"class runs of {runs[default]} beside {runs['Adam, published schedule']} of the recipe,"
        f" {runs['k-means, 2-opt']} of k-means in 2-opt order and"
        f" {runs['1000 random orders of the first']} by chance",
        {"results/class_runs": of[default]},
    )


@claim
def one_pass() -> Claim:
    passes = rows("streaming", "One pass", curve="stream, half-life ∞")
    fits = rows("streaming", "One pass", curve="fit")
    faster = [fit["seconds"] / one["seconds"] for one, fit in zip(passes, fits, strict=True)]
    orders = zip(means(passes, "trustworthiness"), means(fits, "trustworthiness"), strict=True)
    holds(min(faster) > 30, "one pass takes less than a thirtieth of a fit's time")
    holds(all(one < fit for one, fit in orders), "one pass has a worse order")
    drifting = [
        min(means(rows("streaming", "A stream", latents=latents), "at the end ÷ fit's"))
        for latents in ("W, from low to high", "clusters that move")
    ]
    above = max(means(passes, "distortion ÷ fit's")) - 1
    below = span([100 * (1 - ratio) for ratio in drifting], 1)
    return Claim(
        "One pass instead of rounds?",
        f"distortion up to {per_cent(above, decimals=1)} above that of a fit, in less than a"
        f" thirtieth of its time and in a worse order; where latents drift, {below} % below it with"
        " the best half-life",
        {"results/streaming": passes[0]},
    )


@claim
def bits() -> Claim:
    models = ("StyleGAN2, W", "BigGAN, linear layer")
    curves = [rows("bits", "Means", model=model)[:9] for model in models]  # 2 to 10 bits
    for curve in curves:
        distortion = means(curve, "distortion ÷ variance")
        holds(distortion == sorted(distortion, reverse=True), "each bit takes distortion away")
    five, six = (min(mean(curve[bits - 2]["classes drawn"]) for curve in curves) for bits in (5, 6))
    holds(five < 8 <= six, "six bits are the fewest for nearly all of ten classes")
    return Claim(
        "How many bits?",
        "more are better; six are the fewest at which nearly all of ten classes have lines of their"
        " own",
        {"results/bits": curves[0][6 - 2]},
    )


@claim
def bitrates() -> Claim:
    at = row("resampling", "Distortion", codewords=16)
    holds(
        abs(mean(at["resampled ÷ fitted"]) - 1) < 0.01,
        "resampled curves are as near as fitted ones",
    )
    worse = not overlap(at["trustworthiness, resampled"], at["trustworthiness, fitted"])
    holds(worse, "a resampled curve has a worse order")
    return Claim(
        "One curve for several bitrates?",
        "resampled from 256 codewords to 16 it is as near to the latents as a fit of 16, in a worse"
        " order",
        {"results/resampling": at},
    )


@claim
def quantiser() -> Claim:
    of = {row["method"]: row for row in rows("vqvae", "Quantisers")}
    ours = of["SFVQ, 256 codewords"]
    for column in ("PSNR", "Fréchet distance"):
        for name in ("DiVeQ", "SimVQ", "VQ, moving averages"):
            holds(overlap(ours[column], of[name][column]), f"{name} is as good in {column}")
    fractions = [of["SFVQ, 64 codewords + 2 bits"], of["SFVQ, 16 codewords + 4 bits"]]
    holds(max(means(fractions, "PSNR")) < mean(ours["PSNR"]), "a fraction is worth less")
    dead = [row["dead"] for name, row in of.items() if "SFVQ" in name]
    holds(not any(map(mean, dead)), "no codeword is dead")
    return Claim(
        "A quantiser inside a network?",
        "at 8 bits as good as DiVeQ, SimVQ and VQ by moving averages, without a dead codeword; a"
        " line's fraction is worth less than a codeword",
        {"results/vqvae": ours},
    )
