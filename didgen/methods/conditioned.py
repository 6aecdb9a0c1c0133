"""What methods share that make an image for a mask and no mask of their own."""

from collections.abc import Sequence

from didgen.methods.didgen.sampler import DiffusionSynthesizer
from didgen.methods.protocol import Request
from didgen.settings.annotation import AnnotationSettings
from didgen.settings.base import Conditioned
from didgen.settings.pairs import RivalConfig


class ConditionedSynthesizer(DiffusionSynthesizer):
    """Makes an image for each request's mask.

    The mask of a sample is the request's, or, with `label: read`, what Eq. 7 reads in the image.
    The settings' `own` are a `Conditioned`.
    """

    settings: RivalConfig

    def check(self, requests: Sequence[Request]) -> None:
        """Name doubtful layouts. Raises: `LayoutError` for an unfit one, `ValueError` for none."""
        without = [request.id for request in requests if request.mask is None]
        if without:
            raise ValueError(
                f"found no mask in {len(without)} requests, such as {without[0]}, expected one in "
                "each: this method makes an image for a mask"
            )
        super().check(requests)

    def reading(self, requests: Sequence[Request]) -> AnnotationSettings | None:
        """Eq. 7 with `label: read`."""
        own = self.settings.own
        return self.settings if isinstance(own, Conditioned) and own.label == "read" else None
