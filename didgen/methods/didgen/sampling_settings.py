"""The settings of sampling, guidance and annotation, by the names that a configuration uses."""

import math
from dataclasses import dataclass

from didgen.attention.annotation import AnnotationSettings, Cleaning, Upsampling
from didgen.attention.guidance import LayoutGuidance, Schedule
from didgen.attention.layers import ReadPath
from didgen.attention.losses import GuidanceReading, Normalization
from didgen.backbone.sampling import MAX_RMS
from didgen.runtime.precision import Precision


@dataclass(frozen=True)
class SamplingSettings:
    """One key a choice; what each means stands in `LayoutGuidance` and `AnnotationSettings`.

    retries: how often an image that diverges is sampled again, each time with another seed
    derived from its own. max_rms: largest root mean square of sound latents.

    Raises ValueError for a value out of range.
    """

    steps: int = 50
    guidance_scale: float = 7.5
    scheduler: str = "ddim"
    precision: Precision = "auto"
    retries: int = 2
    max_rms: float = MAX_RMS

    eta: float = 20.0
    guided_fraction: float = 0.5
    schedule: Schedule = "constant"
    reading: GuidanceReading = "minmax"
    cross_normalization: Normalization = "mean"
    self_normalization: Normalization = "sum"
    cross_weight: float = 1.0
    self_weight: float = 1.0
    guide_every: int = 2
    guide_layers: ReadPath = "all"
    reuse_prediction: bool = True

    tau: int = 4
    last_steps: int = 1
    upsampling: Upsampling = "bicubic"
    filter_radius: float = 1 / 32
    filter_epsilon: float = 1e-3
    closing_fraction: float = 1 / 64
    fill_holes: bool = True
    max_hole: float = 1.0
    keep_largest: bool = True
    min_piece: float = 0.0

    def __post_init__(self) -> None:
        if self.retries < 0 or not (math.isfinite(self.max_rms) and self.max_rms > 0):
            raise ValueError(
                f"retries {self.retries} and max_rms {self.max_rms}: expected at least 0, and a "
                "finite number above 0"
            )
        if self.last_steps > self.steps:
            raise ValueError(
                f"last_steps is {self.last_steps}, but there are only {self.steps} steps"
            )
        self.guidance()
        self.annotation()

    def guidance(self) -> LayoutGuidance:
        """The settings of Eq. 6."""
        return LayoutGuidance(
            eta=self.eta,
            guided_fraction=self.guided_fraction,
            schedule=self.schedule,
            cross_reading=self.reading,
            cross_normalization=self.cross_normalization,
            self_normalization=self.self_normalization,
            cross_weight=self.cross_weight,
            self_weight=self.self_weight,
            every=self.guide_every,
            layers=self.guide_layers,
            reuse_prediction=self.reuse_prediction,
        )

    def annotation(self) -> AnnotationSettings:
        """The settings of Eq. 7."""
        return AnnotationSettings(
            tau=self.tau,
            last_steps=self.last_steps,
            upsampling=self.upsampling,
            filter_radius=self.filter_radius,
            filter_epsilon=self.filter_epsilon,
            cleaning=Cleaning(
                closing_fraction=self.closing_fraction,
                fill_holes=self.fill_holes,
                keep_largest=self.keep_largest,
                max_hole=self.max_hole,
                min_piece=self.min_piece,
            ),
        )
