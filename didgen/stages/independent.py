"""Which images count as independent: those that share neither a lesion nor a patient."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

RELATING = ("lesion_id", "patient_id")


def units_of(frame: "pd.DataFrame") -> "np.ndarray":
    """Number the groups of images of one lesion or patient, directly or through others (N,).

    Photographs of one patient resemble each other more than those of two, as do those of one
    lesion. "" is unknown and relates to nothing, as does a column that the table has not.
    """
    import numpy as np

    from didgen.data.splits import related_groups

    keys = [frame[column].fillna("").tolist() for column in RELATING if column in frame]
    return related_groups(*keys) if keys else np.arange(len(frame))
