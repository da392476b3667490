"""Models of the benchmarks written as users write them: GPT-2 small, a LLaMA, a deep CNN."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


class CausalAttention(nn.Module):
    """Attention that looks back only."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.drop = nn.Dropout(0.1)
        self.heads = heads

    def forward(self, x):
        size = x.shape
        q, k, v = (
            part.view(*size[:2], self.heads, -1).transpose(1, 2)
            for part in self.c_attn(x).split(size[2], dim=2)
        )
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        mask = torch.ones(size[1], size[1], device=x.device).tril()
        scores = scores.masked_fill(mask == 0, float("-inf"))
        mixed = self.drop(F.softmax(scores, dim=-1)) @ v
        return self.c_proj(mixed.transpose(1, 2).reshape(size))


class GptMlp(nn.Module):
    """Two layers and GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.act = nn.Linear(width, 4 * width), nn.GELU()
        self.c_proj, self.drop = nn.Linear(4 * width, width), nn.Dropout(0.1)

    def forward(self, x):
        return self.drop(self.c_proj(self.act(self.c_fc(x))))


class GptBlock(nn.Module):
    """One layer of the decoder."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), CausalAttention(width, heads)
        self.ln_2, self.mlp = nn.LayerNorm(width), GptMlp(width)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GptDecoder(nn.Module):
    """GPT-2 small."""

    def __init__(self, words: int = 50257, width: int = 768, heads: int = 12, depth: int = 12):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(words, width), nn.Embedding(1024, width)
        self.drop = nn.Dropout(0.1)
        self.h = nn.ModuleList(GptBlock(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, words, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids):
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.drop(self.wte(ids) + self.wpe(places))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class RmsNorm(nn.Module):
    """Root mean square norm."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


def rotate(x):
    """Turn the second half of the last axis before the first."""
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


class GroupedAttention(nn.Module):
    """Attention with fewer key heads than query heads, and rotary places."""

    def __init__(self, width: int, heads: int, key_heads: int) -> None:
        super().__init__()
        self.heads, self.key_heads, self.size = heads, key_heads, width // heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, self.size * key_heads, bias=False)
        self.v_proj = nn.Linear(width, self.size * key_heads, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.key_heads, self.size).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.key_heads, self.size).transpose(1, 2)
        q, k = q * cos + rotate(q) * sin, k * cos + rotate(k) * sin
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(x.shape))


class GatedMlp(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj, self.act = nn.Linear(inner, width, bias=False), nn.SiLU()

    def forward(self, x):
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class LlamaLayer(nn.Module):
    """One layer of the decoder."""

    def __init__(self, width: int, heads: int, key_heads: int, inner: int) -> None:
        super().__init__()
        self.attention = GroupedAttention(width, heads, key_heads)
        self.mlp = GatedMlp(width, inner)
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class LlamaDecoder(nn.Module):
    """A LLaMA of 7 billion parameters."""

    def __init__(self, words: int = 32000, width: int = 4096, depth: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.layers = nn.ModuleList(LlamaLayer(width, 32, 8, 11008) for _ in range(depth))
        self.norm, self.head = RmsNorm(width), nn.Linear(width, words, bias=False)
        self.half, self.base = width // 64, 10000.0

    def forward(self, ids):
        x = self.embed(ids)
        steps = torch.arange(self.half, device=x.device) / self.half
        places = torch.arange(ids.shape[1], device=x.device).float()
        angles = torch.outer(places, self.base**-steps).repeat(1, 2)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        return self.head(self.norm(x))


class ConvBlock(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ConvNet(nn.Module):
    """A CNN of 200 modules."""

    def __init__(self, depth: int = 39) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(*(ConvBlock(16) for _ in range(depth)))
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.blocks(self.norm(self.stem(x))).mean((2, 3)))
