"""Pre-norm transformer blocks (Dosovitskiy et al., 2021) over the fused attention operator."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitlite.kernels import attention


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, heads * E) tokens as (B, heads, N, E), the layout of :func:`vitlite.kernels.attention`."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """(B, heads, N, E) back to (B, N, heads * E)."""
    return tokens.transpose(1, 2).flatten(2)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Tokens (B, heads, N, E) turned by the angles of their places (Su et al., 2021), given by cosine and sine (N, E).

    Channels i and i + E / 2 are turned together.
    """
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, dim), with one projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads: {heads} heads do not divide the width {dim}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *rotation: Tensor) -> Tensor:
        """Projected (B, M, dim) queries and (B, N, dim) keys and values to the (B, M, dim) output.

        rotation: nothing, or cosine and sine (N, dim / heads) of angles by which queries and keys are turned.
        """
        query, key, value = (split_heads(x, self.heads) for x in (query, key, value))
        if rotation:
            query, key = (turned(x, *rotation) for x in (query, key))
        return self.proj(merge_heads(attention(query, key, value)))

    def forward(self, x: Tensor, *rotation: Tensor) -> Tensor:
        return self.attend(*self.qkv(x).chunk(3, dim=-1), *rotation)

    def forward_kept(self, x: Tensor, kept: Callable[[Tensor], Tensor]) -> Tensor:
        """Attention outputs for the queries that ``kept`` selects; every token still serves as key and value.

        The same numbers as ``kept(self(x))``, without the queries and outputs that are not read.
        """
        dim = x.shape[-1]
        key, value = F.linear(x, self.qkv.weight[dim:], self.qkv.bias[dim:]).chunk(2, dim=-1)
        query = F.linear(kept(x), self.qkv.weight[:dim], self.qkv.bias[:dim])
        return self.attend(query, key, value)


def phi(x: Tensor) -> Tensor:
    """elu(x) + 1, without the sum below 0: it would be 0 from -6 on in bfloat16, and attention 0 / 0."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


class LinearAttention(Attention):
    """Attention whose cost grows linearly with the tokens (Katharopoulos et al., 2020): phi = elu + 1, no softmax.

    The output is phi(q) (phi(k)^T v) / (phi(q) . sum of phi(k)), for each head.
    """

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *rotation: Tensor) -> Tensor:
        """As ``Attention.attend``."""
        # Copied to one block a head: matrix products of strided heads take longer than the copy.
        query, key, value = (split_heads(x, self.heads).contiguous() for x in (query, key, value))
        if rotation:
            query, key = (turned(x, *rotation) for x in (query, key))
        query, key = phi(query), phi(key)
        whole = query @ key.sum(-2).unsqueeze(-1)
        return self.proj(merge_heads(query @ (key.transpose(-2, -1) @ value) / whole))


class Mlp(nn.Module):
    """Two linear layers with GELU between them, (B, N, dim) to the same shape."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor for each channel of tokens (B, N, dim) (Touvron et al., 2021)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    With ``layer_scale`` what is added to x each time is scaled before. ``rotation`` is that of ``Attention.attend``.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float = 4.0,
        eps: float = 1e-5,
        layer_scale: bool = False,
        attention: type[Attention] = Attention,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attention(dim, heads)
        self.ls1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = LayerScale(dim) if layer_scale else nn.Identity()

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the block."""
        return x + self.ls2(self.mlp(self.norm2(x)))

    def forward(self, x: Tensor, *rotation: Tensor) -> Tensor:
        return self.feed_forward(x + self.ls1(self.attn(self.norm1(x), *rotation)))

    def forward_kept(self, x: Tensor, kept: Callable[[Tensor], Tensor]) -> Tensor:
        """``kept(self(x))`` for a function that selects tokens, computed for the selected tokens alone."""
        return self.feed_forward(kept(x) + self.ls1(self.attn.forward_kept(self.norm1(x), kept)))


def init_transformer(module: nn.Module) -> None:
    """Xavier-uniform linear layers with zero biases, as MAE (He et al., 2022) starts its transformers."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def sincos_positions(height: int, width: int, dim: int) -> Tensor:
    """Two-dimensional sine-cosine position table (height * width, dim), the usual start of a learned one.

    Half of the channels code the row, half the column; a remainder of ``dim`` modulo 4 stays zero.
    """
    quarter = dim // 4
    omega = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / max(quarter, 1))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    parts = []
    for axis in (rows, columns):
        angle = axis.reshape(-1, 1).double() * omega
        parts += [angle.sin(), angle.cos()]
    return F.pad(torch.cat(parts, dim=1), (0, dim - 4 * quarter)).float()
