"""Claims about generators, and about what directions and curves say of their images."""

from benchmarks.claims.claim import Claim, claim, holds
from benchmarks.tables import (
    interval,
    load,
    mean,
    means,
    number,
    overlap,
    per_cent,
    row,
    rows,
    scientific,
    span,
    together,
)


@claim
def generators() -> Claim:
    error = "largest difference ÷ largest value"
    parity = sorted(rows("parity", "Converted"), key=lambda row: row[error])
    small = sum(row[error] < 3e-6 for row in parity)
    within = f"within {scientific(parity[-1][error])} of upstream"
    most = f"{small} of {len(parity)} checkpoints within {scientific(3e-6)}"
    images = [*rows("generators", "StyleGAN2"), *rows("generators", "BigGAN")]
    times = span(means(images, "ours ÷ fastest other"), 3)
    return Claim(
        "Are the generators right and fast?",
        f"{within}, {most}; {times} times PyTorch's images a second on a CPU",
        {
            "how-to/checkpoints": parity[-1],
            "results/generators": images[0],
            "results/large_images": None,
            "results/memory": None,
        },
        f"[{within}](how-to/checkpoints), {most}, and [{times} times as fast](results/generators)"
        " as PyTorch on a CPU",
    )


@claim
def bundled_models() -> Claim:
    names = ("judge_fashion_mnist", "judge_fashion_mnist_biggan")
    samples = [row(name, "10,000", images="samples") for name in names]
    distances = together(f"{row['Fréchet distance']:.0f}" for row in samples)
    return Claim(
        "Are the bundled models any good?",
        f"Fréchet distances of {distances} in a classifier's features",
        {"results/bundled": samples[0]},
    )


@claim
def directions() -> Claim:
    w = row("directions", "Summary", model="StyleGAN2, W", candidates="pairs")
    biggan = row("directions", "Summary", model="BigGAN, linear layer", candidates="pairs")
    attributes = {row["attribute"] for row in rows("directions", "Directions")}
    share, half = (per_cent(row["confirmed"]) for row in (w, biggan))
    return Claim(
        "Do directions mean what they say?",
        f"in W {share} of {len(attributes)} do, by a scorer that had no part in finding them:"
        f" {per_cent(w['gained'])} of the images that lack an attribute get it before they leave"
        f" the distribution, {per_cent(w['by chance'])} by chance; in the BigGAN's linear layer"
        f" {half} do",
        {"results/directions": w},
        f"[{share} of {len(attributes)}](results/directions) in W, by a scorer that had no part in"
        f" finding them; {half} in a BigGAN's linear layer",
    )


@claim
def comparison() -> Claim:
    of = {row["method"]: row for row in rows("comparison_fashion_mnist", "Methods")}
    ours, rivals = of["SFVQ"], [of[name] for name in ("GANSpace, PCA", "SeFa", "LatentCLR")]
    fewer = all(reached < mean(ours["reached"]) for reached in means(rivals, "reached"))
    holds(fewer, "PCA, SeFa and LatentCLR reach fewer attributes")
    apart = [row["method"] for row in rivals if not overlap(ours["reached"], row["reached"])]
    holds(apart == ["LatentCLR"], "of the three only LatentCLR reaches fewer with certainty")
    pca, se_fa, clr = (per_cent(row["reached"]) for row in rivals)
    as_pure = all(p_value(row["dependency_gap"]) > 0.05 for row in rivals)
    holds(as_pure, "no gap in dependency from PCA, SeFa and LatentCLR is certain")
    random = of["random"]["recognition_equal"]
    holds(overlap(ours["recognition_equal"], random), "random directions are told apart as well")
    for name in ("class means, supervised", "k-means", "random pairs"):
        holds(overlap(ours["reached"], of[name]["reached"]), f"{name} reach as much")
    curve, k_means = (row["class_runs"] for row in rows("comparison_fashion_mnist", "Order"))
    ordered = mean(curve) > mean(k_means) and not overlap(curve, k_means)
    holds(ordered, "the curve has longer class runs than k-means")
    return Claim(
        "Better than PCA, SeFa, LatentCLR?",
        f"lines reach {per_cent(ours['reached'])} of the attributes in W, PCA {pca}, SeFa {se_fa}"
        f" and LatentCLR {clr}, and only LatentCLR's interval lies apart; what else changes is the"
        " same within the intervals; at steps of equal length random directions are told apart"
        " about as well; class means of a scorer, k-means' means and pairs of random latents reach"
        " as much: the curve adds the order",
        {"results/comparison": ours},
        f"lines reach [{per_cent(ours['reached'])} of the attributes](results/comparison) in W,"
        f" PCA {pca}, SeFa {se_fa}, LatentCLR {clr}; only LatentCLR's interval lies apart. They"
        " change as much else as the others. Pairs of random latents and class means reach as much:"
        " the curve adds the order",
    )


def p_value(gap: str) -> float:
    """Of a gap between methods, after Holm: "0.034 ± 0.036 (p 0.66)"."""
    return float(gap.rstrip(")").partition("(p ")[2])


@claim
def known_factors() -> Claim:
    edits = {row["method"]: row for row in rows("known_factors", "Edits", model="btcvae_dsprites")}
    lines, pairs, random = (
        span([mean(edits[name][factor]) / mean(edits["the VAE's axes"][factor]) for factor in "xy"])
        for name in ("SFVQ, lines", "SFVQ, pairs", "random pairs")
    )
    codes = rows("known_factors", "Codes", model="VAE_dsprites")
    (ica,) = (row["MIG"] for row in codes if row["method"] == "ICA")
    others = [row for row in codes if row["method"] not in ("ICA", "regression, supervised")]
    best = all(interval(row["MIG"])[2] < interval(ica)[1] for row in others)
    holds(best, "ICA's MIG is above all others where latents are entangled")
    return Claim(
        "Are directions factors, where these are known?",
        f"in a VAE with independent latents lines edit x and y with {lines} of the side effects of"
        f" its axes, pairs with {pairs}, and pairs of random latents with {random}; as coordinates"
        " ICA is best where latents are entangled",
        {"results/known_factors": edits["SFVQ, lines"]},
    )


@claim
def sixty_four_labels() -> Claim:
    accuracy = {
        model: {row["method"]: row["accuracy"] for row in rows("labels", "Accuracy", model=model)}
        for model in ("BigGAN, linear layer", "StyleGAN2, W", "real images")
    }
    biggan, w, real = accuracy.values()
    best, of_real = biggan["around the curve"], real["64 real images"]
    holds(best == max(*biggan.values(), of_real), "the map's labels are best in the BigGAN")
    curve = max(w[f"{where} the curve"] for where in ("on", "near", "around"))
    random = w["random latents"]
    holds(curve < random, "the map's labels are worse than those of random latents in W")
    return Claim(
        "Are 64 labels enough?",
        f"in the BigGAN's linear layer best of all ways: {per_cent(best)} of the test images are"
        f" right, beside {per_cent(of_real)} by 64 real images; in W of the StyleGAN2 worse than"
        f" labels of random latents: {per_cent(curve)} beside {per_cent(random)}",
        {"results/labels": row("labels", "Accuracy", accuracy=best)},
    )


@claim
def dimensions() -> Claim:
    found = [row(f"dimensions_{of}", "Over 90", way="sequential") for of in ("z", "w", "lines")]
    z, w, lines = (f"{size:.0f}" for size in means(found, "size"))
    return Claim(
        "Which dimensions control a class?",
        f"{z} of 64 in z, {w} in W, {lines} lines of a curve",
        {"results/dimensions": found[0]},
    )


@claim
def photographs() -> Claim:
    names = ("inversion_fashion_mnist", "inversion_fashion_mnist_biggan")
    for name in names:
        saved = row(name, "Steps", start="the curve", steps=25)["from the mean as many as"]
        holds(saved == "more than 100", "25 steps from a curve are worth 100 from the mean")
        curve = row(name, "Starts", start="the curve", steps=25)
        centre = row(name, "Starts", start="the mean", steps=100)
        nearer = all(mean(curve[column]) > mean(centre[column]) for column in ("PSNR", "SSIM"))
        holds(nearer, "25 steps from a curve are nearer than 100 from the mean")
        edits = rows(name, "Edits", confirmed=True)
        sampled = {row["direction"]: row["effect"] for row in edits if row["latents"] == "sampled"}
        for edit in edits:
            same = overlap(edit["effect"], sampled[edit["direction"]])
            holds(same or "as it is" not in edit["latents"], "photographs change as samples do")
    ends = [row(name, "Starts", start="the curve", steps=100) for name in names]
    w, biggan = (f"{psnr:.0f}" for psnr in means(ends, "PSNR"))
    kept, images = per_cent(*means(ends, "class kept")), load(names[0])["settings"]["images"]
    return Claim(
        "Do photographs come into the space?",
        f"{images} test images: from a curve 25 steps give what 100 from the mean do not reach, and"
        f" 100 steps {w} dB in W and {biggan} in the BigGAN's linear layer, with {kept} of the"
        " classes kept; directions change them as they do samples",
        {"how-to/photographs": None, "results/inversion": ends[0]},
    )


@claim
def ten_thousand_smiles() -> Claim:
    names = [f"faces_smiles_{model}_celeba" for model in ("VAE", "btcvae")]
    smiles = [row(name, "Smiles", faces="with a smile") for name in names]
    shares = per_cent(*means(smiles, "in the judge's upper quarter"))
    r = together(number(row(name, "Agreement")["correlation"], 2) for name in names)
    return Claim(
        "Ten thousand smiling faces?",
        f"{shares} of those drawn from two VAEs of CelebA are among the happiest quarter of a"
        f" network that had no part in drawing them, though the networks agree by r = {r} only",
        {"results/faces": smiles[0]},
        f"[{shares}](results/faces) are in the happiest quarter of a network that did not choose"
        " them",
    )
