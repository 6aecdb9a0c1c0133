"""Feature maps of EfficientNet-Lite0 with its ImageNet weights: what images look alike by."""

import torch
from torch import Tensor, nn

from didgen.downstream.weights import lite0_state

NAME = "efficientnet_lite0"


class Lite0Features(nn.Module):
    """Images BCHW in [-1, 1] -> maps at 1/2, 1/4 and 1/8 of their side, weights frozen."""

    def __init__(self, depth: int = 3) -> None:
        import timm

        super().__init__()
        self.body = timm.create_model(NAME, features_only=True, out_indices=tuple(range(depth)))
        state = lite0_state()
        self.body.load_state_dict({name: state[name] for name in self.body.state_dict()})
        self.body.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The feature maps, finest first."""
        # The weights were trained on (x - 127) / 128 with x in 0..255.
        return self.body((images * 127.5 + 0.5) / 128)

    def train(self, mode: bool = True) -> "Lite0Features":
        """Stay in evaluation mode: running statistics must not move."""
        return super().train(False)


def lite0_features() -> nn.Module:
    """The frozen features, on the CPU in single precision."""
    with torch.no_grad():
        return Lite0Features()
