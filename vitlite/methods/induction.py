"""The transformer of SIVT (Yao and Yu, 2022), Algorithm 1, and the splits of tokens into its subsets."""

from typing import Any

import torch
from torch import Tensor, nn

from vitlite.nn.transformer import Block, init_transformer, sincos_positions


class SelfInduction(nn.Module):
    """The trained transformer: patches (B, L, F) to reconstructed patches (B, L, F), Algorithm 1.

    ``config`` has the settings of sivt. ``order`` (L,) is the permutation that splits the positions: its i-th run of
    L/N entries is subset i. Runs differ by one if N does not divide L.
    """

    induced: Tensor
    kept: Tensor
    slot_of: Tensor

    def __init__(self, config: Any, features: int) -> None:
        super().__init__()
        c = config
        rows, columns = c.tokens
        length = rows * columns
        self.subsets = c.subsets if c.induction else 1
        self.self_induction = c.induction
        self.embed = nn.Linear(features, c.dim)
        self.positions = nn.Parameter(sincos_positions(rows, columns, c.dim))
        self.encoder = nn.ModuleList(Block(c.dim, c.heads, c.mlp_ratio) for _ in range(c.encoder_depth))
        self.encoder_norm = nn.LayerNorm(c.dim)
        self.decoder_positions = nn.Parameter(sincos_positions(rows, columns, c.dim))
        self.decoder = nn.ModuleList(Block(c.dim, c.heads, c.mlp_ratio) for _ in range(c.decoder_depth))
        self.decoder_norm = nn.LayerNorm(c.dim)
        self.head = nn.Linear(c.dim, features)
        init_transformer(self)
        if c.induction:
            self.induction = nn.Parameter(torch.randn(length, c.dim) * 0.02)
            self._plan_subsets(length)

    def _plan_subsets(self, length: int) -> None:
        """Index tables over the permuted sequence, in which every subset is one run of slots."""
        bounds = [round(i * length / self.subsets) for i in range(self.subsets + 1)]
        widest = max(b - a for a, b in zip(bounds, bounds[1:]))
        induced = torch.zeros(self.subsets, length, 1, dtype=torch.bool)
        kept, slot_of = [], []
        for i, (a, b) in enumerate(zip(bounds, bounds[1:])):
            induced[i, a:b] = True
            # A shorter run repeats its first slot up to the common width; the repeats are never read back.
            kept += [i * length + s for s in (*range(a, b), *([a] * (widest - b + a)))]
            slot_of += [i * widest + j for j in range(b - a)]
        self.register_buffer("induced", induced, persistent=False)
        self.register_buffer("kept", torch.tensor(kept), persistent=False)
        self.register_buffer("slot_of", torch.tensor(slot_of), persistent=False)

    def forward(self, patches: Tensor, order: Tensor | None = None) -> Tensor:
        x = self.embed(patches)
        latent = self.encode_plain(x) if order is None or not self.self_induction else self.encode_induced(x, order)
        y = self.encoder_norm(latent) + self.decoder_positions
        for block in self.decoder:
            y = block(y)
        return self.head(self.decoder_norm(y))

    def encode_plain(self, x: Tensor) -> Tensor:
        """The vanilla transformer's encoder (Fig. 6)."""
        x = x + self.positions
        for block in self.encoder:
            x = block(x)
        return x

    def encode_induced(self, x: Tensor, order: Tensor) -> Tensor:
        """Lines 2 to 10 of Algorithm 1: latent induction tokens (B, L, dim) in the original order.

        Two things are computed less often than the algorithm is written, with the same result: the first block's
        norm, queries, keys and values of a token are the same in every sequence that holds it; and in the last block
        only the kept positions need queries, outputs and the MLP.
        """
        batch, _, dim = x.shape
        # index_select, not [...]: the gradient of that sorts the indices on a GPU.
        tokens = (x + self.positions).index_select(1, order)
        induction = (self.induction + self.positions).index_select(0, order)
        blocks: list[Any] = list(self.encoder)
        first, *middle, last = blocks if len(blocks) > 1 else [None, *blocks]

        sequences = self._mix(induction, tokens)  # (B * N, L, dim): Phi of Eq. 1
        if first is not None:
            qkv = self._mix(first.attn.qkv(first.norm1(induction)), first.attn.qkv(first.norm1(tokens)))
            sequences = first.feed_forward(sequences + first.attn.attend(*qkv.chunk(3, dim=-1)))
        for block in middle:
            sequences = block(sequences)
        latent = last.forward_kept(sequences, self._keep)
        back = self.slot_of[torch.argsort(order)]
        return latent.reshape(batch, -1, dim).index_select(1, back)

    def _mix(self, induction: Tensor, tokens: Tensor) -> Tensor:
        """(L, E) and (B, L, E) to (B * N, L, E): sequence i takes ``induction`` on the slots of subset i."""
        return torch.where(self.induced, induction, tokens[:, None]).flatten(0, 1)

    def _keep(self, sequences: Tensor) -> Tensor:
        """(B * N, L, E) to (B * N, S, E): of sequence i the slots of subset i."""
        flat = sequences.unflatten(0, (-1, self.subsets)).flatten(1, 2)
        return flat.index_select(1, self.kept).unflatten(1, (self.subsets, -1)).flatten(0, 1)


@torch.compiler.disable  # the compiler of torch 2.13 fails on randperm
def draw_split(
    grid: tuple[int, int], block: int, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """A random permutation of the positions of a grid (rows, columns), in which squares of ``block`` stay together.

    The squares begin anywhere, and those at the edge are cut.
    """
    rows, columns = grid
    if block == 1:
        return torch.randperm(rows * columns, device=device, generator=generator)
    down, right = torch.randint(block, (2,), generator=generator, device=device)
    row = (torch.arange(rows, device=device) + down) // block
    column = (torch.arange(columns, device=device) + right) // block
    across = columns // block + 2
    squares = torch.rand((rows // block + 2) * across, generator=generator, device=device)
    within = torch.rand(rows * columns, generator=generator, device=device)
    # Keys of two squares differ by more than 1e-6, but for one pair in many thousands.
    return torch.argsort(squares[(row[:, None] * across + column).flatten()].double() + 1e-6 * within)
