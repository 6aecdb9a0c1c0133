"""What a step does with its gradients: learning rates, clipping, finite losses, averages."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from didgen.training.processes import whole
from didgen.training.state import Row, copy_tensors


class NonFiniteLoss(ValueError):
    """A loss, its gradient or a validation became NaN or infinite; the saved state is kept."""


def warm_up(step: int, steps: int) -> float:
    """Share of the learning rate in a step, counted from 0: it rises linearly over `steps`."""
    return min(1.0, (step + 1) / max(1, steps))


def warm_up_and_cosine(step: int, steps: int, warmup: int, final: float = 0.0) -> float:
    """Share of the learning rate: linear over `warmup` steps, then half a cosine down to `final`.

    `step` counts from 0, `steps` is the length of the whole training.
    """
    if step < warmup:
        return warm_up(step, warmup)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))


def update(
    optimizer: torch.optim.Optimizer,
    losses: Mapping[str, Tensor],
    *,
    learning_rate: float,
    max_norm: float,
) -> Row:
    """Clip the gradients, let the optimiser take its step and clear them.

    losses: scalars, for the record; they are only checked. Returns them as numbers with "lr" and
    "grad_norm", the norm before clipping.
    Raises: NonFiniteLoss before any weight has changed.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = whole(nn.utils.clip_grad_norm_(parameters, max_norm))
    # All at once: reading a number waits for the device.
    values = torch.stack([*(loss.detach().float() for loss in losses.values()), norm]).tolist()
    for name, value in zip([*losses, "gradient's norm"], values, strict=True):
        if not math.isfinite(value):
            raise NonFiniteLoss(f"the {name} is {value}")
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return dict(zip(losses, values, strict=False)) | {"lr": learning_rate, "grad_norm": values[-1]}


class Average:
    """An exponential moving average of weights (EMA).

    Not diffusers' `EMAModel`: at every update that makes a temporary copy of all weights, several
    GB of a GPU's memory for Stable Diffusion, and it stores weights aside in the processor's.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the parameters after step `step`, counted from 1."""
        # Early on it follows faster, so that short runs are no average of the start.
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and parameters."""
        for value, parameter in zip(self.values, self.parameters, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Have the averaged weights in the model for a while."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights, by their number."""
        return {str(number): value for number, value in enumerate(self.values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved average. Raises: ValueError for other weights."""
        copy_tensors(state, self.state_dict())
