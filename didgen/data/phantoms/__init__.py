"""Procedural dermoscopy: seven classes of lesions on all skin tones, with exact masks and truth.

``cohort`` makes up patients, lesions and photographs; ``render`` draws one photograph;
``spread_centers`` says where lesions may lie that are not to lie in the middle.
"""

from didgen.data.phantoms.cohort import (
    PHANTOM_CLASSES,
    Phantom,
    PhantomSpec,
    PhantomTruth,
    cohort,
    spread_centers,
)
from didgen.data.phantoms.photograph import render

__all__ = [
    "PHANTOM_CLASSES",
    "Phantom",
    "PhantomSpec",
    "PhantomTruth",
    "cohort",
    "render",
    "spread_centers",
]
