"""What each arm adds to the real images."""

from typing import TYPE_CHECKING

from didgen.settings.arms import Arm, ArmError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_DRAW = 20_250


def compose(
    arm: Arm, real: "pd.DataFrame", synthetic: "pd.DataFrame | None", by_class: bool, seed: int
) -> "pd.DataFrame":
    """What the arm adds to the real images: rows of `synthetic` or of `real`, maybe none.

    Every seed draws its own part and order, the same in all arms. A ratio counts real images.
    Smaller ratios are parts of larger ones and keep the shares of the classes. Duplicates follow
    the synthetic set in number and, `by_class`, in every class.
    Raises: `ArmError` where a set is missing or too small, or a class has no real image to repeat.
    """
    if not arm.needs_synthetic:
        return real.iloc[:0]
    if synthetic is None:
        raise ArmError(
            f"found arm {arm.name!r} without synthetic images, expected --synthetic metadata.csv"
            + (", whose number the duplicates match" if arm.kind == "duplicates" else "")
        )
    wanted = len(synthetic) if arm.ratio is None else round(arm.ratio * len(real))
    if arm.kind == "duplicates":
        return _duplicates(real, _shares(synthetic, wanted, by_class), by_class, seed)
    if wanted > len(synthetic):
        raise ArmError(
            f"arm {arm.name!r}: found {len(synthetic)} synthetic images for {len(real)} real ones, "
            f"expected at least {wanted}; make more or take a ratio of at most "
            f"{len(synthetic) / len(real):.2f}x"
        )
    return proportionate(synthetic, wanted, by_class, seed)


def proportionate(frame: "pd.DataFrame", wanted: int, by_class: bool, seed: int) -> "pd.DataFrame":
    """`wanted` rows, drawn by seed; `by_class` with the shares of the classes kept. Of one seed,
    larger draws hold the smaller ones."""
    return frame.iloc[_nested(frame, by_class, seed)[:wanted]]


def _nested(frame: "pd.DataFrame", by_class: bool, seed: int) -> "np.ndarray":
    """An order of the rows whose every beginning has the classes in nearly the same shares."""
    import numpy as np

    rng = np.random.default_rng([_DRAW, seed])
    order = rng.permutation(len(frame))
    labels = frame["label"].to_numpy()[order] if by_class else np.zeros(len(frame))
    place = np.empty(len(frame))
    for label in np.unique(labels):
        own = labels == label
        place[own] = (np.arange(own.sum()) + 0.5) / own.sum()
    return order[np.argsort(place, kind="stable")]


def _shares(synthetic: "pd.DataFrame", wanted: int, by_class: bool) -> dict[str, int]:
    """How many images of each class a set of `wanted` has ("" for all where there is none)."""
    if not by_class:
        return {"": wanted}
    counts = synthetic["label"].value_counts().sort_index()
    exact = counts * (wanted / len(synthetic))
    shares = exact.astype(int)
    # Largest remainders, so that the sum is what was wanted.
    for label in (exact - shares).sort_values(ascending=False).index[: wanted - shares.sum()]:
        shares[label] += 1
    return shares.to_dict()


def _duplicates(
    real: "pd.DataFrame", shares: dict[str, int], by_class: bool, seed: int
) -> "pd.DataFrame":
    """Real rows, repeated: each of a class as often as any other of it, give or take one."""
    import numpy as np

    rng = np.random.default_rng([_DRAW, seed])
    rows = []
    for label, count in shares.items():
        own = np.flatnonzero(real["label"] == label) if by_class else np.arange(len(real))
        if count and not len(own):
            raise ArmError(
                f"duplicates: the synthetic set has {count} images of {label}, of which there is "
                "no real training image to repeat; remove that class from the set"
            )
        while count > 0:
            rows.append(rng.permutation(own)[:count])
            count -= len(own)
    return real.iloc[np.concatenate(rows) if rows else []]
