"""An arm's test results as the parts of its metric, and how much each lesion moves the metric.

Legend: S trainings (seeds), N test images, L lesions (independent groups of images), G groups of
images that the metric averages over, such as classes.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tally:
    """A metric that is a mean over groups of ratios of sums over images.

    numerators, denominators: (S, N, G). Mean Dice has one group, balanced accuracy and macro F1
    one per class. readers: (S,) which trainings count together as one reader, by number, as those
    whose images are of one generator do; None: each is a reader of its own.
    Raises: ValueError for other shapes or values that are not finite.
    """

    numerators: np.ndarray
    denominators: np.ndarray
    readers: np.ndarray | None = None

    def __post_init__(self) -> None:
        shapes = self.numerators.shape, self.denominators.shape
        if len(shapes[0]) != 3 or shapes[0] != shapes[1] or not self.numerators.size:
            raise ValueError(
                f"found scores of shapes {shapes[0]} and {shapes[1]}, "
                "expected two equal ones, (seeds, images, groups)"
            )
        if not (np.isfinite(self.numerators).all() and np.isfinite(self.denominators).all()):
            raise ValueError("found scores that are not finite numbers; evaluate the models again")

    @property
    def per_seed(self) -> np.ndarray:
        """The metric of each seed (S,)."""
        return ratio_mean(self.numerators.sum(1), self.denominators.sum(1))

    def of_seeds(self, chosen: np.ndarray) -> "Tally":
        """The tally of some seeds alone; `chosen` indices."""
        readers = None if self.readers is None else self.readers[chosen]
        return Tally(self.numerators[chosen], self.denominators[chosen], readers)

    def by_reader(self, values: np.ndarray) -> np.ndarray:
        """The means over each reader's trainings of values (S, ...); shape (readers, ...)."""
        if self.readers is None:
            return values
        return np.stack([values[self.readers == own].mean(0) for own in np.unique(self.readers)])

    def by_lesion(self, clusters: np.ndarray) -> "Tally":
        """The same metric with the images of a lesion summed, (S, L, G); clusters (N,)."""
        if len(clusters) != self.numerators.shape[1]:
            raise ValueError(
                f"found {len(clusters)} clusters, expected {self.numerators.shape[1]}, one per "
                "image"
            )
        # Images of a lesion side by side, then one sum each.
        order = np.argsort(clusters, kind="stable")
        starts = np.unique(np.asarray(clusters)[order], return_index=True)[1]
        return Tally(
            np.add.reduceat(self.numerators[:, order], starts, axis=1),
            np.add.reduceat(self.denominators[:, order], starts, axis=1),
            self.readers,
        )

    @property
    def influence(self) -> np.ndarray:
        """What each image (or lesion) adds to the metric, to first order, (S, N); rows sum to 0."""
        totals = self.denominators.sum(1, keepdims=True)
        present = totals > 0
        ratios = np.divide(
            self.numerators.sum(1, keepdims=True), totals, out=np.zeros(totals.shape), where=present
        )
        deviations = self.numerators - ratios * self.denominators
        parts = np.divide(deviations, totals, out=np.zeros(deviations.shape), where=present)
        return parts.sum(-1) / np.maximum(present.sum(-1), 1)


def ratio_mean(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Mean over the last axis of numerator / denominator, leaving out those with nothing below."""
    present = denominators > 0
    ratios = np.divide(numerators, denominators, out=np.zeros_like(numerators), where=present)
    return ratios.sum(-1) / np.maximum(present.sum(-1), 1)


def mean_tally(scores: np.ndarray) -> Tally:
    """The mean of scores (S, N) over images, such as Dice, correctness (accuracy) or NLL."""
    scores = np.atleast_2d(np.asarray(scores, float))[..., None]
    return Tally(scores, np.ones_like(scores))


def recall_tally(predicted: np.ndarray, labels: np.ndarray) -> Tally:
    """Balanced accuracy: the mean over classes of recall. Shapes: (S, N) predicted, (N,) labels."""
    predicted = np.atleast_2d(predicted)
    own = (labels[:, None] == np.unique(labels)).astype(float)
    right = (predicted == labels).astype(float)[..., None]
    return Tally(right * own, np.broadcast_to(own, (len(predicted), *own.shape)).copy())


def f1_tally(predicted: np.ndarray, labels: np.ndarray) -> Tally:
    """Macro F1 over the classes of the labels: 2 TP / (2 TP + FP + FN). Shapes as `recall_tally`.

    An image adds 1 to the denominator of its true class and 1 to that of its predicted class.
    """
    classes = np.unique(labels)
    true = (labels[:, None] == classes).astype(float)
    seen = (np.atleast_2d(predicted)[..., None] == classes).astype(float)
    return Tally(2 * seen * true, seen + true)
