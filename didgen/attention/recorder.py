"""Attention maps of a running UNet (Eq. 2), read without changing a bit of its output.

A layer's queries and keys are the outputs of its own `to_q` and `to_k`. The hooks only keep
references to them: the layer goes on with its fast attention, and everything else is computed
here, outside the UNet, when asked for. So no self-attention map (N x N a head) is ever stored.
"""

import inspect
import threading
from collections.abc import Callable
from typing import NotRequired, TypedDict

import torch
from torch import Tensor, nn

from didgen.attention.captures import (
    Positions,
    QueriesAndKeys,
    apply_self_attention,
    cross_attention_maps,
)
from didgen.attention.layers import (
    AttentionLayer,
    AttentionRecordingError,
    Grid,
    ReadPath,
    attention_layers,
    check_readable,
    restrict_layers,
    select_layers,
)


class CrossRequest(TypedDict):
    """Cross-attention wanted: at which resolution, and (optionally now) of which tokens.

    `resolution`: the grid's shorter side, or (height, width). `positions`: K token positions
    for all images, or K for each image (B, K); position 0 is the start token.
    """

    resolution: int | Grid
    positions: NotRequired[Positions]


class SelfRequest(TypedDict):
    """Self-attention wanted: at which resolution (the grid's shorter side, or both)."""

    resolution: int | Grid


class _Enough(Exception):
    """Every wanted layer has been seen: leave the UNet. Never escapes `run`."""


class AttentionRecorder:
    """Records cross- and self-attention of a diffusers UNet2DConditionModel while in context.

    `with AttentionRecorder(unet, cross={"resolution": 16, "positions": [4, 6]},
    self_={"resolution": 32}) as rec: unet(...)`; then `rec.cross_maps()` (B, K, H, W) and
    `rec.apply_self_attention(v)` (B, N), averaged over the layers of that resolution and their
    heads, with gradient if the pass had one. The UNet's output is bitwise the same with and
    without. Each forward pass replaces what the last one recorded; results stay readable
    after the context, unless it was left by an exception. Hooks are removed on every exit.
    `path` leaves layers out that come late: see `restrict_layers`.

    Only passes of the thread that entered are recorded, and what gradient checkpointing
    recomputes during the backward pass is not.

    Raises AttentionRecordingError: neither kind asked for; no layer at that resolution (during
    the first pass); a layer whose map is not the plain softmax; reentrant checkpointing.
    """

    def __init__(
        self,
        unet: nn.Module,
        cross: CrossRequest | None = None,
        self_: SelfRequest | None = None,
        path: ReadPath = "all",
    ) -> None:
        if cross is None and self_ is None:
            raise AttentionRecordingError("ask for cross, self_, or both; got neither")
        if not isinstance(unet, nn.Module):
            raise AttentionRecordingError(f"unet: found a {type(unet).__name__}, expected a UNet")
        for name, asked in (("cross", cross), ("self_", self_)):
            side = asked.get("resolution") if isinstance(asked, dict) else None
            if asked is not None and not isinstance(side, int | tuple | list):
                raise AttentionRecordingError(
                    f"{name}: found {asked!r}, expected a dict with a resolution: the grid's "
                    "shorter side, or (height, width)"
                )
        self.unet = unet
        self._cross = cross
        self._self = self_
        self._path: ReadPath = path
        # The class's signature: wrappers such as accelerate's replace the instance's forward.
        self._signature = inspect.signature(type(unet).forward)
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._plans: dict[Grid, dict[str, AttentionLayer]] = {}
        self._forget()

    def _forget(self) -> None:
        self._plan: dict[str, AttentionLayer] = {}
        self._queries: dict[str, Tensor] = {}
        self._captures: dict[str, QueriesAndKeys] = {}
        self._inside = False
        self._stop_early = False
        self._stop_graph = False

    # ---- context ------------------------------------------------------------------------

    def __enter__(self) -> "AttentionRecorder":
        if self._handles:
            raise AttentionRecordingError("this recorder is already in use; make another one")
        self._forget()
        self._thread = threading.get_ident()
        try:
            self._hook()
        except BaseException:
            self._unhook()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._unhook()
        if kind is not None:
            self._forget()

    def _hook(self) -> None:
        unet = self.unet
        kinds = {k for k, asked in (("cross", self._cross), ("self", self._self)) if asked}
        # Which layers exist does not depend on the size; which are wanted does, so it is
        # settled on entry of each pass and the hooks of the others return at once.
        for name, layer in attention_layers(unet, 1024).items():
            if layer.kind in kinds:
                attention = unet.get_submodule(name)
                self._handles += [
                    attention.to_q.register_forward_hook(self._query_hook(name)),
                    attention.to_k.register_forward_hook(self._key_hook(name, attention)),
                ]
        self._handles += [
            unet.register_forward_pre_hook(self._before_pass, with_kwargs=True),
            unet.register_forward_hook(self._after_pass, always_call=True),
        ]

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    # ---- hooks --------------------------------------------------------------------------

    def _before_pass(self, unet: nn.Module, args: tuple, kwargs: dict) -> None:
        if threading.get_ident() != self._thread:
            return
        self._queries, self._captures = {}, {}
        given = self._signature.bind_partial(unet, *args, **kwargs).arguments
        for name in ("attention_mask", "encoder_attention_mask"):
            if given.get(name) is not None:
                raise AttentionRecordingError(
                    f"the UNet was given {name}; maps are read without one, leave it out"
                )
        height, width = given["sample"].shape[-2:]
        self._plan = self.layers_for((height, width))
        self._grad = torch.is_grad_enabled()
        self._inside = True

    def _after_pass(self, unet: nn.Module, args: tuple, output: object) -> None:
        if threading.get_ident() != self._thread:
            return
        self._inside = False
        self._queries = {}
        missing = [name for name in self._plan if name not in self._captures]
        if output is not None and missing:
            raise AttentionRecordingError(
                f"the pass never used to_q and to_k of {', '.join(missing)}; "
                "attention that bypasses its own projections cannot be recorded"
            )

    def _query_hook(self, name: str) -> Callable:
        def keep(module: nn.Module, args: tuple, query: Tensor) -> None:
            if self._wants(name):
                self._queries[name] = query

        return keep

    def _key_hook(self, name: str, attention: nn.Module) -> Callable:
        def keep(module: nn.Module, args: tuple, key: Tensor) -> None:
            if not self._wants(name) or name not in self._queries:
                return
            layer = self._plan[name]
            query = self._queries.pop(name)
            self._check(layer, query, key)
            self._captures[name] = QueriesAndKeys(layer, query, key, attention.scale)
            if len(self._captures) < len(self._plan):
                return
            if self._stop_early:
                raise _Enough
            if self._stop_graph:
                torch.set_grad_enabled(False)  # until `run` sets it back

        return keep

    def _wants(self, name: str) -> bool:
        ours = self._inside and threading.get_ident() == self._thread
        if not ours or name not in self._plan:
            return False
        if self._grad and not torch.is_grad_enabled():
            raise AttentionRecordingError(
                f"{name} runs without gradient inside a pass that has one, as reentrant gradient "
                "checkpointing does; the maps' gradient would be lost silently. Use "
                "unet.enable_gradient_checkpointing(), which is non-reentrant"
            )
        return True

    def _check(self, layer: AttentionLayer, query: Tensor, key: Tensor) -> None:
        pixels = layer.grid[0] * layer.grid[1]
        if query.ndim != 3 or query.shape[1] != pixels:
            raise AttentionRecordingError(
                f"{layer.name} ran on queries of shape {tuple(query.shape)}, expected {pixels} "
                f"pixels of a {layer.grid[0]}x{layer.grid[1]} grid"
            )
        if layer.kind == "self" and key.shape[1] != pixels:
            raise AttentionRecordingError(
                f"{layer.name} attends to {key.shape[1]} keys, expected its own {pixels} pixels"
            )

    def layers_for(self, grid: Grid) -> dict[str, AttentionLayer]:
        """The layers, by name, that a pass over latents of this height and width records."""
        if grid not in self._plans:
            layers = attention_layers(self.unet, grid)
            wanted = self.choose_layers(layers)
            order = list(layers)
            wanted.sort(key=lambda layer: order.index(layer.name))
            wanted = restrict_layers(wanted, self._path)
            for layer in wanted:
                check_readable(layer.name, self.unet.get_submodule(layer.name))
            self._plans[grid] = {layer.name: layer for layer in wanted}
        return self._plans[grid]

    def choose_layers(self, layers: dict[str, AttentionLayer]) -> list[AttentionLayer]:
        """Of all layers of a UNet those that are recorded, in any order."""
        wanted: list[AttentionLayer] = []
        if self._cross is not None:
            wanted += select_layers(layers, "cross", self._cross["resolution"])
        if self._self is not None:
            wanted += select_layers(layers, "self", self._self["resolution"])
        return wanted

    # ---- running and reading ------------------------------------------------------------

    def run(
        self,
        latents: Tensor,
        timestep: Tensor | int,
        embeddings: Tensor,
        early_exit: bool = False,
        stop_graph: bool = False,
    ) -> Tensor | None:
        """Run the UNet; with `early_exit`, stop it after the last wanted layer and return None.

        With `stop_graph` the pass goes on after that layer, but without a graph: the maps have a
        gradient, the output has none, and what lies behind the maps costs no memory.

        Under gradient checkpointing a pass with gradient is run to its end, graph and all: a
        checkpointed region that was left halfway cannot be recomputed.
        """
        if not self._handles:
            raise AttentionRecordingError("run() needs the context: `with recorder: ...`")
        checkpointing = getattr(self.unet, "is_gradient_checkpointing", False)
        in_part = not (checkpointing and torch.is_grad_enabled())
        self._stop_early, self._stop_graph = early_exit and in_part, stop_graph and in_part
        try:
            with torch.set_grad_enabled(torch.is_grad_enabled()):
                output = self.unet(latents, timestep, encoder_hidden_states=embeddings)
        except _Enough:
            return None
        finally:
            self._stop_early, self._stop_graph = False, False
        if early_exit:
            return None
        return output.sample.detach() if stop_graph else output.sample

    def captures(self, kind: str) -> list[QueriesAndKeys]:
        """Queries and keys of the last pass, "cross" or "self", in order of execution."""
        if self._inside or not self._captures:
            raise AttentionRecordingError("nothing is recorded yet; run the UNet first")
        of_kind = [c for c in self._captures.values() if c.layer.kind == kind]
        if not of_kind:
            raise AttentionRecordingError(f"{kind}-attention was not asked for")
        return of_kind

    def cross_maps(self, positions: Positions | None = None) -> Tensor:
        """A_C (Eq. 2) of K tokens, (B, K, H, W), averaged over layers and heads.

        Each value is a probability: over all S text positions a pixel's maps sum to 1.
        `positions` as in the request, which it overrides.
        """
        if positions is None and self._cross is not None:
            positions = self._cross.get("positions")
        if positions is None:
            raise AttentionRecordingError("say which token positions to map")
        return cross_attention_maps(self.captures("cross"), positions)

    def apply_self_attention(self, v: Tensor) -> Tensor:
        """A_S v (Eq. 2) for v (B, N) or (B, N, C); see `apply_self_attention`."""
        return apply_self_attention(self.captures("self"), v)

    @property
    def self_grid(self) -> Grid:
        """(height, width) of the recorded self-attention; N is their product, rows first."""
        return self.captures("self")[0].layer.grid
