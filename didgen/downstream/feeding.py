"""Batches read ahead, so that the network does not wait for images that are still being decoded."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch

from didgen.downstream.datasets import ImageSet

AHEAD = 2
Batch = tuple[torch.Tensor, torch.Tensor]


def batches_of(
    data: ImageSet, indices: Iterable[np.ndarray], ahead: int = AHEAD
) -> Iterator[Batch]:
    """`data.batch` of each item of `indices`, in order, at most `ahead` of them read in advance.

    Reading has no randomness, so batches are those that reading in turn would give. An error while
    reading is raised when its batch is due.
    """
    if data.in_memory:
        yield from map(data.batch, indices)
        return
    remaining = iter(indices)
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Batch]] = deque(
            pool.submit(data.batch, rows) for rows in islice(remaining, ahead)
        )
        try:
            while waiting:
                found = waiting.popleft().result()
                for rows in islice(remaining, 1):
                    waiting.append(pool.submit(data.batch, rows))
                yield found
        finally:
            for future in waiting:
                future.cancel()
