"""Procedural dermoscopy: seven classes of lesions on all skin tones, with exact masks and truth.

``cohort`` makes up patients, lesions and photographs; ``render`` draws one photograph.
"""

from .clinic import cohort
from .photograph import render
from .types import PHANTOM_CLASSES, Phantom, PhantomSpec, PhantomTruth

__all__ = ["PHANTOM_CLASSES", "Phantom", "PhantomSpec", "PhantomTruth", "cohort", "render"]
