"""Which attention layers a UNet has, and at which resolution each one works."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from didgen.settings.guidance import ReadPath

Kind = Literal["cross", "self"]
Grid = tuple[int, int]

# Shorter sides of the maps that the method reads: cross-attention in Eq. 3, 6 and 7,
# self-attention in Eq. 5 and 7.
CROSS_SIDE, SELF_SIDE = 16, 32

# Processors whose queries and keys are exactly the outputs of `to_q` and `to_k`.
PLAIN_PROCESSORS = frozenset(
    {"AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor", "XFormersAttnProcessor"}
)


class AttentionRecordingError(ValueError):
    """Attention cannot be read as asked from this UNet; the message says what to change."""


@dataclass(frozen=True)
class AttentionLayer:
    """One attention layer: full module name, "cross" or "self", its (height, width) and heads."""

    name: str
    kind: Kind
    grid: Grid
    heads: int

    @property
    def resolution(self) -> int:
        """The shorter side of the layer's grid, the number a resolution is asked for by."""
        return min(self.grid)


def as_grid(size: int | Grid) -> Grid:
    """An int as a square (height, width); a pair as it is."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise AttentionRecordingError(f"a size of {(height, width)} is not positive")
    return int(height), int(width)


def attention_layers(unet: nn.Module, latent_size: int | Grid) -> dict[str, AttentionLayer]:
    """List a UNet's attention layers in the order in which a forward pass reaches them.

    `latent_size` is the latent's side or (height, width). Nothing is computed, so it also works for
    a model on the meta device, before any costly work.

    Raises AttentionRecordingError if `unet` is not built of down, mid and up blocks.
    """
    layers: dict[str, AttentionLayer] = {}
    for block_name, block, grid in _blocks(unet, as_grid(latent_size)):
        # By the end of the name: asking every module for its attention takes milliseconds a pass.
        for inner_name, module in block.named_modules():
            named = inner_name.rpartition(".")[2] in ("attn1", "attn2")
            if named and hasattr(module, "is_cross_attention"):
                name = f"{block_name}.{inner_name}"
                kind: Kind = "cross" if module.is_cross_attention else "self"
                layers[name] = AttentionLayer(name, kind, grid, module.heads)
    return layers


def select_layers(
    layers: dict[str, AttentionLayer], kind: Kind, resolution: int | Grid
) -> list[AttentionLayer]:
    """The layers of one kind whose grid has this shorter side (int) or is this grid (pair).

    Raises AttentionRecordingError, naming the resolutions that exist, when none matches.
    """
    of_kind = [layer for layer in layers.values() if layer.kind == kind]
    if isinstance(resolution, int):
        chosen = [layer for layer in of_kind if layer.resolution == resolution]
    else:
        chosen = [layer for layer in of_kind if layer.grid == tuple(resolution)]
    if not chosen:
        grids = sorted({layer.grid for layer in of_kind}, reverse=True)
        there = ", ".join(f"{height}x{width}" for height, width in grids) or "none at all"
        raise AttentionRecordingError(
            f"no {kind}-attention layer works at resolution {resolution}; with this latent size "
            f"the UNet has {kind}-attention at: {there}. Ask for one of these, or change the "
            "image size"
        )
    return chosen


def restrict_layers(wanted: Sequence[AttentionLayer], path: ReadPath) -> list[AttentionLayer]:
    """The wanted layers that lie on a path, in order of execution, so that a pass can end sooner.

    "all": every one. "to-coarse": those up to the last one of the coarsest wanted resolution (in
    Stable Diffusion, with cross maps at 16x16 and self-attention at 32x32, up to up_blocks[1], so
    that self-attention is read in the down path alone). "down": those of the down path.

    Raises AttentionRecordingError for an unknown path, and when a kind that was wanted has no
    layer left on it.
    """
    if path not in get_args(ReadPath):
        raise AttentionRecordingError(
            f"unknown path {path!r}, expected one of {get_args(ReadPath)}"
        )
    kept = list(wanted)
    if path == "down":
        kept = [layer for layer in kept if layer.name.startswith("down_blocks.")]
    elif path == "to-coarse":
        coarsest = min(layer.resolution for layer in kept)
        last = max(i for i, layer in enumerate(kept) if layer.resolution == coarsest)
        kept = kept[: last + 1]
    for kind in sorted({layer.kind for layer in wanted} - {layer.kind for layer in kept}):
        raise AttentionRecordingError(
            f"the path {path!r} has no {kind}-attention layer of the wanted resolution; read 'all'"
        )
    return kept


def check_readable(name: str, attention: nn.Module) -> None:
    """Check that softmax(to_q . to_k * scale) is the map that this module computes.

    Raises AttentionRecordingError for query/key norms, added key/value projections, fused
    projections, grouped keys, and processors other than the plain ones.
    """
    processor = type(attention.processor).__name__
    reasons = {
        "normalizes its queries or keys": attention.norm_q is not None
        or attention.norm_k is not None,
        "has added key/value projections": attention.added_kv_proj_dim is not None,
        "has fused projections (call unet.unfuse_qkv_projections())": attention.fused_projections,
        "shares keys between heads": attention.inner_kv_dim != attention.inner_dim,
        f"runs {processor}, whose maps are not known to be the plain ones "
        f"(use one of {', '.join(sorted(PLAIN_PROCESSORS))})": processor not in PLAIN_PROCESSORS,
    }
    for reason, holds in reasons.items():
        if holds:
            raise AttentionRecordingError(f"cannot read the attention of {name}: it {reason}")


def _blocks(unet: nn.Module, latent_grid: Grid) -> Iterator[tuple[str, nn.Module, Grid]]:
    """Yield (name, block, grid its attention works on) from the first block to the last."""
    if not hasattr(unet, "down_blocks") or not hasattr(unet, "up_blocks"):
        raise AttentionRecordingError(
            f"{type(unet).__name__} has no down_blocks and up_blocks; pass the bare "
            "UNet2DConditionModel, not a wrapper around it"
        )
    grid = latent_grid
    grids = []
    for index, block in enumerate(unet.down_blocks):
        grids.append(grid)
        yield f"down_blocks.{index}", block, grid
        if getattr(block, "downsamplers", None) is not None:
            # A 3x3 convolution of stride 2 and padding 1 halves a side, rounding up.
            grid = (-(-grid[0] // 2), -(-grid[1] // 2))
    if getattr(unet, "mid_block", None) is not None:
        yield "mid_block", unet.mid_block, grid
    for index, block in enumerate(unet.up_blocks):
        # Up block i receives the skips of the i-th down block from the end, at their size.
        yield f"up_blocks.{index}", block, grids[len(grids) - 1 - index]
