"""Queries and keys of one pass, and the attention that follows from them (Eq. 2).

Shape legend: B images, K tokens, S text positions, N pixels of a layer's grid, h heads,
d channels a head, C columns of a value matrix, H and W a grid's height and width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from didgen.attention.layers import AttentionLayer, AttentionRecordingError

Positions: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | Tensor


@dataclass(frozen=True)
class QueriesAndKeys:
    """What one layer's attention map is made of: query (B, N, h*d), key (B, S or N, h*d)."""

    layer: AttentionLayer
    query: Tensor
    key: Tensor
    scale: float

    def by_head(self) -> tuple[Tensor, Tensor]:
        """Query (B, h, N, d) and key (B, h, S, d) in at least single precision."""
        return self._split(self.query), self._split(self.key)

    def _split(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return x.unflatten(-1, (self.layer.heads, -1)).transpose(1, 2)


def cross_attention_maps(captures: Sequence[QueriesAndKeys], positions: Positions) -> Tensor:
    """A_C = softmax(Q_I K_T^T / sqrt(d)) (Eq. 2) of chosen tokens, (B, K, H, W) in [0, 1].

    Softmax runs over all S text positions in at least single precision, whatever the UNet's;
    the mean gives every head of every layer the same weight (layers of one resolution have
    equally many heads in Stable Diffusion).
    """
    batch, length = captures[0].key.shape[:2]
    index = check_positions(positions, batch, length).to(captures[0].key.device)
    total: Any = 0.0
    with torch.autocast(captures[0].query.device.type, enabled=False):
        for capture in captures:
            query, key = capture.by_head()
            weights = (query @ key.mT * capture.scale).softmax(dim=-1)  # (B, h, N, S)
            chosen = index[:, None, None, :].expand(*weights.shape[:3], -1)
            total = total + weights.gather(-1, chosen).mean(dim=1)  # (B, N, K)
    return (total / len(captures)).mT.unflatten(-1, captures[0].layer.grid)


def apply_self_attention(captures: Sequence[QueriesAndKeys], v: Tensor) -> Tensor:
    """A_S v, where A_S = softmax(Q_I K_I^T / sqrt(d)) (Eq. 2) averaged over layers and heads.

    v is (B, N) or (B, N, C), pixels in row-major order; the result has its shape. Rows of A_S
    sum to 1. Computed as fused attention with v as the values, so A_S itself never exists;
    the gradient flows to the queries, the keys and v.
    """
    batch, pixels = captures[0].query.shape[:2]
    if v.ndim not in (2, 3) or v.shape[:2] != (batch, pixels):
        raise AttentionRecordingError(
            f"v has shape {tuple(v.shape)}, expected ({batch}, {pixels}) or "
            f"({batch}, {pixels}, columns)"
        )
    columns = v if v.ndim == 3 else v.unsqueeze(-1)
    width = columns.shape[-1]
    total: Any = 0.0
    with torch.autocast(v.device.type, enabled=False):
        for capture in captures:
            query, key = capture.by_head()
            # The fused kernels want values as wide as the queries: pad with zero columns.
            padded = functional.pad(columns.to(query.dtype), (0, max(0, query.shape[-1] - width)))
            values = padded.unsqueeze(1).expand(-1, query.shape[1], -1, -1)
            result = functional.scaled_dot_product_attention(
                query, key, values, scale=capture.scale
            )
            total = total + result[..., :width].mean(dim=1)
    return (total / len(captures)).reshape(v.shape)


def check_positions(positions: Positions, batch: int, length: int) -> Tensor:
    """Token positions as a (B, K) tensor of indices below `length`.

    Raises AttentionRecordingError for none, another batch size, or one out of range.
    """
    index = torch.as_tensor(positions, dtype=torch.long)
    if index.ndim == 1:
        index = index.expand(batch, -1)
    if index.ndim != 2 or index.shape[0] != batch or index.shape[1] == 0:
        raise AttentionRecordingError(
            f"token positions have shape {tuple(index.shape)}, expected K or ({batch}, K), K > 0"
        )
    if int(index.min()) < 0 or int(index.max()) >= length:
        raise AttentionRecordingError(
            f"token positions {index.tolist()} leave the text of {length} positions"
        )
    return index
