"""Is this a good map? A curve measured on fresh latents; `verdicts` says it in words.

Letters: N samples, D dimensions, K codewords.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import pdist

from sfvq_jax.curve import Curve, decode
from sfvq_jax.images import batch_of, in_batches, scaled_down
from sfvq_jax.interpret.attributes import Scorer
from sfvq_jax.interpret.geometry import kmeans, nearest, numpy_generator
from sfvq_jax.interpret.map.classes import (
    agreement_by_chance,
    class_distances,
    classes_of,
    commonest_of,
)
from sfvq_jax.interpret.map.two_sets import two_sets
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.projection import project
from sfvq_jax.quality import (
    class_runs_by_chance,
    codebook_quality,
    line_use,
    perplexity,
    same_class_share,
)
from sfvq_jax.sources import as_source, check_source

Array = jax.Array

OUTLIER_QUANTILE = 0.999  # of fresh latents' distances to the nearest of others
RENDERED = 4096  # latents whose images are sorted into classes, at most
BATCH = 16  # images rendered at once, fewer where they are large
IMAGE_SIDE = 64  # pixels, to which larger images are scaled down before they are compared
ALL_PAIRS = 256  # codewords, up to which all pairs of images are compared
SOME_PAIRS = 4096  # pairs compared otherwise: their mean is good to 1 % or better


class MapQuality(NamedTuple):
    """Measures of a curve as a map of a latent space; None for those that were not measured.

    Attributes:
      codewords: number of codewords K.
      samples: number of latents in each of two sets without common latents. One set is for
        comparison and k-means; on the other, everything is measured.
      distortion: mean over samples and dimensions of (x - nearest point of the curve)².
      codeword_distortion: likewise, to the nearest codeword.
      kmeans_distortion: likewise, to the nearest of K means that k-means (k-means++, at most 20
        rounds) finds for the other set. With few latents per mean, k-means overfits. None if the
        set has fewer than K latents.
      distortion_to_kmeans: distortion ÷ kmeans_distortion.
      codeword_distortion_to_kmeans: codeword_distortion ÷ kmeans_distortion.
      line_use: perplexity of the use of lines ÷ their number; 1 is even use.
      codeword_use: the same for codewords, by nearest codeword.
      dead: number of dead codewords: nearest to none of the samples.
      samples_a_codeword: samples ÷ K, the samples of each codeword if the use were even. Then about
        K exp(-samples ÷ K) codewords would get none by chance.
      outliers: number of codewords farther from the nearest real latent than 99.9 % of fresh
        latents are from the nearest other latent.
      inside: median distance from random points of the curve, evenly spread over positions, to the
        nearest real latent ÷ the same median for fresh latents. In many dimensions a curve of means
        lies nearer to the centre than any latent, so values below 1 are usual.
      inside_tail: the same with 95 % quantiles, for the worst stretches of the curve.
      mean_norm, mean_step, step_ratio, neighbour_share, length_ratio, trustworthiness, continuity:
        see `CodebookQuality`.
      class_runs: share of neighbouring codewords with the same class. A codeword has the class of
        its image or, with labels, that of most latents of the other set nearest to it.
      class_runs_by_chance: the same for random orders of these classes.
      class_distance: mean Jensen-Shannon distance, from 0 to 1, between the use of codewords by two
        classes, over all pairs of classes with at least 20 latents.
      class_distance_by_chance: the same with the classes shuffled among the latents; with few
        latents per codeword it is near 1.
      least_class_distance: distance of the two classes that are most alike.
      least_class_distance_by_chance: the same with the classes shuffled.
      purity: share of latents with the class of their nearest codeword.
      purity_by_chance: the same with the classes shuffled among the latents.
      image_step: mean RMS difference of the images of neighbouring codewords ÷ that of any two
        codewords; 1 is a random order. Images with sides above 64 pixels are scaled down to 64.
    """

    codewords: int
    samples: int
    distortion: float
    codeword_distortion: float
    kmeans_distortion: float | None
    distortion_to_kmeans: float | None
    codeword_distortion_to_kmeans: float | None
    line_use: float
    codeword_use: float
    dead: int
    samples_a_codeword: float
    outliers: int
    inside: float | None
    inside_tail: float | None
    mean_norm: float
    mean_step: float
    step_ratio: float
    neighbour_share: float
    length_ratio: float | None
    trustworthiness: float
    continuity: float
    class_runs: float | None = None
    class_runs_by_chance: float | None = None
    class_distance: float | None = None
    class_distance_by_chance: float | None = None
    least_class_distance: float | None = None
    least_class_distance_by_chance: float | None = None
    purity: float | None = None
    purity_by_chance: float | None = None
    image_step: float | None = None

    def _repr_html_(self) -> str:
        from sfvq_jax.interpret.map.verdicts import report_html  # which knows this class

        return report_html(self)


def map_quality(
    key: Array,
    curve: Curve,
    source: Any,
    *,
    model: LatentModel | None = None,
    scorer: Scorer | None = None,
    labels: Any = None,
    samples: int = 2**14,
) -> MapQuality:
    """Measures a curve on latents drawn afresh; `report` says what the numbers mean.

    Args:
      key: a PRNG key; the same key and arguments give the same numbers.
      curve: K >= 3 codewords of width D.
      source: source of latents, as for `fit`. Choose an array or a file that the curve was not
        fitted to: on its own latents any curve looks a little better.
      model: the generator, to measure images too.
      scorer: scorer of classes; the class of an image is that of its highest score. Needs a model.
      labels: classes of the rows of an array or a file, [N] integers or texts, in place of a
        scorer.
      samples: number of latents in a set; half of the source if it has fewer than two sets.

    Raises:
      ValueError: fewer than three codewords, latents of another width, fewer than two latents, or a
        scorer without a model; labels beside a scorer, of latents that are drawn, or none that
        `rows_at` takes.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (512, 2))
    >>> curve = Curve(jnp.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [9.0, 0.0]]))
    >>> quality = map_quality(jax.random.key(1), curve, x)
    >>> quality.samples, quality.dead, quality.outliers
    (256, 1, 1)
    """
    if curve.num_codewords < 3:
        raise ValueError(f"a map needs three codewords or more; this has {curve.num_codewords}")
    if scorer is not None and model is None:
        raise ValueError("classes are of images: pass the model that renders them too")
    if scorer is not None and labels is not None:
        raise ValueError("a scorer and labels both say classes: leave one of them out")
    source = as_source(source)
    classes = None if labels is None else classes_of(labels, source)
    check_source(source, curve)
    reference, fresh, *rows = two_sets(key, source, samples)
    k, d = curve.codewords.shape
    random = numpy_generator(jax.random.fold_in(key, 1))
    projection = project(curve, fresh)
    codeword, distance = nearest(curve.codewords, fresh)
    distortion = float(projection.squared_distance.mean()) / d
    codeword_distortion = float(jnp.mean(distance**2)) / d
    kmeans_distortion = None
    if k <= len(reference):
        means = kmeans(random, np.asarray(reference), k)
        kmeans_distortion = float(jnp.mean(nearest(jnp.asarray(means), fresh).distance ** 2)) / d
    counts = np.bincount(codeword, minlength=k)
    positions = random.uniform(0, curve.num_lines, len(fresh))
    points = decode(curve, jnp.asarray(positions, jnp.float32))
    of_points, of_fresh, of_codewords = (
        np.asarray(nearest(reference, x).distance) for x in (points, fresh, curve.codewords)
    )
    quality = MapQuality(
        codewords=k,
        samples=len(fresh),
        distortion=distortion,
        codeword_distortion=codeword_distortion,
        kmeans_distortion=kmeans_distortion,
        distortion_to_kmeans=_ratio(distortion, kmeans_distortion),
        codeword_distortion_to_kmeans=_ratio(codeword_distortion, kmeans_distortion),
        line_use=float(perplexity(line_use(projection, k - 1))) / (k - 1),
        codeword_use=float(perplexity(jnp.asarray(counts / len(fresh), jnp.float32))) / k,
        dead=int((counts == 0).sum()),
        samples_a_codeword=len(fresh) / k,
        outliers=int((of_codewords > np.quantile(of_fresh, OUTLIER_QUANTILE)).sum()),
        inside=_ratio(*(float(np.median(x)) for x in (of_points, of_fresh))),
        inside_tail=_ratio(*(float(np.quantile(x, 0.95)) for x in (of_points, of_fresh))),
        **codebook_quality(curve)._asdict(),
    )
    if model is not None:
        quality = quality._replace(image_step=_image_step(random, model, curve))
    of_codewords = of_latents = None
    if classes is not None:
        of_reference, of_latents = (classes[numbers] for numbers in rows)
        of_codewords = commonest_of(curve, reference, of_reference)
    elif model is not None and scorer is not None:

        def seen(latents: Array) -> np.ndarray:
            batch = batch_of(model, BATCH)
            scores = in_batches(lambda part: scorer(model.render(part)), latents, batch)
            return scores.argmax(1)

        of_codewords, of_latents = seen(curve.codewords), seen(fresh[:RENDERED])
    if of_codewords is not None and of_latents is not None:
        near = np.asarray(codeword[: len(of_latents)])
        quality = quality._replace(
            class_runs=same_class_share(of_codewords),
            class_runs_by_chance=class_runs_by_chance(of_codewords),
            purity=float((of_latents == of_codewords[near]).mean()),
            purity_by_chance=agreement_by_chance(of_latents, of_codewords[near]),
            **class_distances(random, of_latents, near, k),
        )
    return quality


def _image_step(random: np.random.Generator, model: LatentModel, curve: Curve) -> float | None:
    def pixels(part: Array) -> np.ndarray:
        return np.asarray(scaled_down(model.render(part), IMAGE_SIDE)).reshape(len(part), -1)

    images = in_batches(pixels, curve.codewords, batch_of(model, BATCH))
    k = curve.num_codewords
    steps = np.linalg.norm(np.diff(images, axis=0), axis=1)
    if k <= ALL_PAIRS:
        pairs = pdist(images)
    else:
        one = random.integers(k, size=SOME_PAIRS)
        other = (one + random.integers(1, k, size=SOME_PAIRS)) % k
        pairs = np.linalg.norm(images[one] - images[other], axis=1)
    return _ratio(float(steps.mean()), float(pairs.mean()))


def _ratio(value: float, reference: float | None) -> float | None:
    return value / reference if reference else None
