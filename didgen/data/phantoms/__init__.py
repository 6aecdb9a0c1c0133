"""Procedural dermoscopy: seven classes of lesions on all skin tones, with exact masks and truth.

``cohort`` makes up patients, lesions and photographs; ``render`` draws one photograph;
``spread_centers`` says where lesions may lie that are not to lie in the middle.
"""

from .clinic import cohort, spread_centers
from .photograph import render
from .types import PHANTOM_CLASSES, Phantom, PhantomSpec, PhantomTruth

__all__ = [
    "PHANTOM_CLASSES",
    "Phantom",
    "PhantomSpec",
    "PhantomTruth",
    "cohort",
    "render",
    "spread_centers",
]
