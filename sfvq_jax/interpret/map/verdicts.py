"""What the measures of a map say in words, and where good ends and bad begins."""

import html
from typing import NamedTuple

from sfvq_jax.interpret.map.health import OUTLIER_QUANTILE, MapQuality


class Finding(NamedTuple):
    """One measure of a map, in words.

    Attributes:
      measure: name of the measure.
      value: its value, as text.
      verdict: its meaning, in a sentence.
      good: whether the value is good; None if it is in between, or if data is too small to tell.
    """

    measure: str
    value: str
    verdict: str
    good: bool | None


class Scale(NamedTuple):
    """How a measure is judged: good up to one bound, or from it on where `bad` lies below it."""

    measure: str
    field: str
    good: float
    bad: float
    verdicts: tuple[str, str, str]  # good, between, bad
    chance: str | None = None  # the field of what chance gives, above which the bounds count


# Bounds come from constructed curves, whose faults are known, and from published ones: see each.
SCALES = (
    # lines have more to give than as many points, and a length penalty costs some of it
    Scale("distortion ÷ k-means", "distortion_to_kmeans", 1.1, 1.3, (
        "the curve is as close to the latents as k-means with as many means",
        "the curve is somewhat farther from the latents than k-means with as many means",
        "the curve is far from the latents: fit with more rounds or a lower length penalty",
    )),
    # neighbours that share their samples along lines are no k-means, and lose a tenth or two
    Scale("codewords' distortion ÷ k-means", "codeword_distortion_to_kmeans", 1.25, 1.5, (
        "the codewords by themselves stand for the latents nearly as well as k-means",
        "the codewords by themselves stand for the latents less well than k-means",
        "the codewords are poorly placed: refit, or fit with a lower length penalty",
    )),
    # half: as even use of half of the lines. 0.75: a line typically has 0.5 to 2 times its part
    Scale("use of lines", "line_use", 0.75, 0.5, (
        "the curve spends its lines evenly",
        "some lines are used much more than others",
        "many lines are hardly used: refit, or fit with more rounds",
    )),
    Scale("use of codewords", "codeword_use", 0.75, 0.5, (
        "the curve spends its codewords evenly",
        "some codewords are used much more than others",
        "many codewords are hardly used: refit, or fit with more rounds",
    )),
    # 1: as near to a latent as latents are to each other
    Scale("inside", "inside", 1.1, 1.25, (
        "the curve is as near to latents as latents are to each other",
        "the curve is somewhat farther from latents than they are from each other",
        "much of the curve runs where no latents are: refit, or fit with a higher length penalty",
    )),
    Scale("inside, worst stretches", "inside_tail", 1.1, 1.25, (
        "no stretch is much farther from latents than they are from each other",
        "its worst stretches are at the edge of the latents",
        "its worst stretches run where no latents are: do not trust images from there",
    )),
    # 1 is a random order; the published codebooks have 0.45 to 0.70
    Scale("step ÷ mean distance", "step_ratio", 0.7, 0.9, (
        "steps are short beside the distance of any two codewords",
        "steps are little shorter than the distance of any two codewords",
        "steps are as long as in a random order",
    )),
    # 2/K is a random order; the published codebooks have 0.19 to 0.94, the most legible the most
    Scale("nearest is a neighbour", "neighbour_share", 0.7, 0.4, (
        "most codewords are next to their nearest one",
        "many codewords are not next to their nearest one",
        "few codewords are next to their nearest one: refit, or fit with a higher length penalty",
    )),
    # 1/2 is a random order
    Scale("trustworthiness", "trustworthiness", 0.8, 0.65, (
        "what is near on the map is alike",
        "what is near on the map is mostly alike",
        "what is near on the map need not be alike: refit, or fit with a higher length penalty",
    )),
    Scale("continuity", "continuity", 0.8, 0.65, (
        "what is alike is near on the map",
        "what is alike is mostly near on the map",
        "what is alike is scattered over the map: refit, or fit with a higher length penalty",
    )),
    # 2-opt itself is some 5 % off the best, and the published codebooks are 5 to 12 % above it
    Scale("length ÷ 2-opt", "length_ratio", 1.1, 1.25, (
        "no much shorter order of its codewords is known",
        "a somewhat shorter order of its codewords exists: refit the curve",
        "a much shorter order of its codewords exists: refit the curve",
    )),
    # shares of the way from chance to 1; a random order of 32 codewords is up to 0.15 off chance
    Scale("class runs", "class_runs", 0.3, 0.15, (
        "classes come in runs",
        "classes come in short runs",
        "classes come as in a random order",
    ), "class_runs_by_chance"),
    # digits, which k-nearest neighbours tell apart to 1 %, have 0.82 at 32 codewords
    Scale("purity", "purity", 0.6, 0.3, (
        "latents are of the class of their codeword",
        "many latents are of another class than their codeword",
        "classes are mixed at the codewords: use more bits",
    ), "purity_by_chance"),
    Scale("distance of classes", "class_distance", 0.5, 0.2, (
        "classes have codewords of their own",
        "classes share many codewords",
        "classes are hardly told apart by their codewords: use more bits",
    ), "class_distance_by_chance"),
    Scale("distance of the closest classes", "least_class_distance", 0.2, 0.1, (
        "any two classes are told apart",
        "two classes are hardly told apart",
        "two classes share their codewords: use more bits to tell them apart",
    ), "least_class_distance_by_chance"),
    # 1 is a random order
    Scale("image step", "image_step", 0.75, 0.9, (
        "images change little from codeword to codeword",
        "images change somewhat less from codeword to codeword than in a random order",
        "images change from codeword to codeword as in a random order",
    )),
)  # fmt: skip
ENOUGH_SAMPLES = 16  # a codeword: an evenly used one gets none once in exp(16) draws


def report(quality: MapQuality) -> list[Finding]:
    """Explains the measures of a map in words; measures that are None are left out.

    Args:
      quality: result of `map_quality`.

    Returns:
      A `Finding` for each measure, dead codewords and outliers first.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax import Curve
    >>> from sfvq_jax.interpret import map_quality, report
    >>> x = jax.random.normal(jax.random.key(0), (512, 2))
    >>> curve = Curve(jnp.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [9.0, 0.0]]))
    >>> for finding in report(map_quality(jax.random.key(1), curve, x))[:2]:
    ...     print(finding.measure, finding.value, finding.good, sep="; ")
    dead codewords; 1 of 4; False
    outlier codewords; 1 of 4; False
    """
    findings = [_judge(scale, quality) for scale in SCALES]
    counts = [_judge_dead(quality), _judge_outliers(quality)]
    return [*counts, *(finding for finding in findings if finding is not None)]


def report_html(quality: MapQuality) -> str:
    """The report as a table, for notebooks."""
    rows = [
        "".join(f"<td>{html.escape(text)}</td>" for text in (f.measure, f.value, f.verdict))
        for f in report(quality)
    ]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _judge(scale: Scale, quality: MapQuality) -> Finding | None:
    value = getattr(quality, scale.field)
    if value is None:
        return None
    text, good, bad = f"{value:.2f}", scale.good, scale.bad
    if scale.chance is not None:
        chance = getattr(quality, scale.chance)
        text += f" (by chance {chance:.2f})"
        if chance == 1:
            return Finding(scale.measure, text, "chance gives the most there is", None)
        value = (value - chance) / (1 - chance)
    if good > bad:
        value, good, bad = -value, -good, -bad
    if value <= good:
        return Finding(scale.measure, text, scale.verdicts[0], True)
    if value < bad:
        return Finding(scale.measure, text, scale.verdicts[1], None)
    return Finding(scale.measure, text, scale.verdicts[2], False)


def _judge_dead(quality: MapQuality) -> Finding:
    dead, expected = quality.dead, quality.samples_a_codeword
    value = f"{dead} of {quality.codewords}"
    if dead == 0:
        return Finding("dead codewords", value, "every codeword is nearest to some latent", True)
    verdict = f"{_count(dead)} dead: no latent is nearest to {'it' if dead == 1 else 'them'}"
    if expected < ENOUGH_SAMPLES:
        verdict += f"; with {expected:.1f} samples a codeword, by chance perhaps: measure with more"
        return Finding("dead codewords", value, verdict, None)
    verdict += f", where even use gives {expected:.0f}: refit, or fit with more samples"
    return Finding("dead codewords", value, verdict, False)


def _judge_outliers(quality: MapQuality) -> Finding:
    """Good where there are no more than there would be among as many latents."""
    outliers, value = quality.outliers, f"{quality.outliers} of {quality.codewords}"
    if outliers <= (1 - OUTLIER_QUANTILE) * quality.codewords:
        verdict = "the codewords lie among the latents"
        return Finding("outlier codewords", value, verdict, True)
    verdict = f"{_count(outliers)} outside the latents: refit the curve"
    return Finding("outlier codewords", value, verdict, False)


def _count(number: int) -> str:
    return f"{number} codeword is" if number == 1 else f"{number} codewords are"
