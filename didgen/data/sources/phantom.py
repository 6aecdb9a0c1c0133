"""The built-in source: procedural phantoms, every one with label, mask, lesion and patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from didgen.data.phantoms import PhantomSpec, cohort, render
from didgen.data.sources.records import Photograph, Record

if TYPE_CHECKING:
    from didgen.settings.data import Fit

# The tiny backbone was pretrained on cohorts of small seeds (10,000 a pretraining seed, one a
# shard). Far above them, no run is tested on phantoms that its backbone has already seen.
FIRST_SEED = 10**9


@dataclass(frozen=True)
class PhantomPixels:
    """A phantom, rendered on demand at any size."""

    spec: PhantomSpec

    @property
    def has_mask(self) -> bool:
        """Always: a phantom's outline is known."""
        return True

    @property
    def name(self) -> str:
        """The phantom's id."""
        return self.spec.id

    def read(self, size: int) -> Photograph:
        """Render at `size` px."""
        image, mask = self.load(size, "crop")
        return Photograph(image, mask, (size, size))

    def load(self, size: int, fit: "Fit") -> tuple[np.ndarray, np.ndarray | None]:
        """Render at `size` px; phantoms are square, so `fit` has nothing to do."""
        phantom = render(self.spec, size=size)
        return phantom.image, phantom.mask


def phantom_records(n_images: int, classes: Sequence[str], seed: int) -> list[Record]:
    """Records of a cohort of phantoms, in equal shares of the classes; none was pretrained on."""
    return [
        Record(
            id=spec.id,
            label=spec.label,
            lesion_id=spec.lesion_id,
            patient_id=spec.patient_id,
            source="phantom",
            split="",
            pixels=PhantomPixels(spec),
        )
        for spec in cohort(n_images, classes, seed=FIRST_SEED + seed)
    ]
