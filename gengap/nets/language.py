"""Language models: the LSTMs of Zaremba et al. 2014, and a small decoder-only transformer.

Both take windows of token numbers, int64 of shape (B, T), and give a score of every word of the vocabulary for the token
that follows each position, shape (B, C, T): the class axis where `cross_entropy` looks for it, so that the loss is the
mean over windows and positions, in nats per token, and its exponential the perplexity.

A window is one sample and begins from nothing: the LSTM's state is 0 there. Carrying the state from one window to the
next, as Zaremba et al. do, ties the samples of consecutive batches to each other, while batches here are drawn at random
and their size does not change what is learnt; it costs some perplexity, the more the shorter the windows.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gengap.core.errors import BadInput


def lstm_small(classes: int = 10_000) -> nn.Module:
    """Two layers of 200 units, no dropout, weights uniform on +-0.1."""
    return LstmLanguageModel(classes, 200, dropout=0.0, spread=0.1)


def lstm_medium(classes: int = 10_000) -> nn.Module:
    """Two layers of 650 units, dropout 0.5, weights uniform on +-0.05."""
    return LstmLanguageModel(classes, 650, dropout=0.5, spread=0.05)


def lstm_large(classes: int = 10_000) -> nn.Module:
    """Two layers of 1500 units, dropout 0.65, weights uniform on +-0.04."""
    return LstmLanguageModel(classes, 1500, dropout=0.65, spread=0.04)


def transformer_small(input_shape: tuple[int, ...] = (35,), classes: int = 10_000) -> nn.Module:
    """Four blocks of width 128 with 4 heads, tied embedding, no dropout."""
    return Transformer(classes, input_shape[0], width=128, depth=4, heads=4)


def transformer_medium(input_shape: tuple[int, ...] = (35,), classes: int = 10_000) -> nn.Module:
    """Six blocks of width 384 with 6 heads, tied embedding, dropout 0.1."""
    return Transformer(classes, input_shape[0], width=384, depth=6, heads=6, dropout=0.1)


class Lstm(nn.Module):
    """One LSTM layer with one bias per gate; torch's has two, of which only the sum acts.

    It is written out step by step, so that it can be differentiated twice and vectorised over runs, which fused
    kernels cannot. Weights are those of `nn.LSTM`, in its order of gates: input, forget, cell, output.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.from_input = nn.Linear(inputs, 4 * units)
        self.from_state = nn.Linear(units, 4 * units, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, inputs) to the hidden states (B, T, units), from a zero state."""
        gates = self.from_input(x)
        hidden = cell = x.new_zeros(x.shape[0], self.from_state.in_features)
        states = []
        for gate in gates.unbind(1):
            enter, keep, content, show = (gate + self.from_state(hidden)).chunk(4, dim=1)
            cell = keep.sigmoid() * cell + enter.sigmoid() * content.tanh()
            hidden = show.sigmoid() * cell.tanh()
            states.append(hidden)
        return torch.stack(states, dim=1)


class LstmLanguageModel(nn.Module):
    """The word-level model of Zaremba et al. 2014 (arXiv:1409.2329): dropout on all connections but the recurrent ones.

    Args:
        classes: words of the vocabulary.
        units: of each layer, and width of the embedding.
        layers: LSTM layers.
        dropout: chance that a number is dropped after the embedding and after each layer.
        spread: all weights and biases begin uniform on (-spread, spread).
    """

    def __init__(self, classes: int, units: int, *, layers: int = 2, dropout: float, spread: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, units)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Lstm(units, units) for _ in range(layers))
        self.output = nn.Linear(units, classes)
        for p in self.parameters():
            nn.init.uniform_(p, -spread, spread)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token numbers (B, T) to scores of the next token (B, C, T)."""
        x = self.dropout(self.embedding(tokens))
        for layer in self.layers:
            x = self.dropout(layer(x))
        return self.output(x).transpose(1, 2)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A decoder-only transformer: causal attention, layer norm before each part, learnt positions, GELU.

    Layout and initial weights follow GPT-2 (Radford et al. 2019): N(0, 0.02**2), divided by sqrt(2 x depth) where a
    branch ends, biases 0. Fused attention kernels have no second derivative; the measures switch torch to its plain
    "math" kernel where they need one, and so does `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)` in code of yours.

    Args:
        classes: tokens of the vocabulary, C.
        length: longest window, T.
        width: of every position, a multiple of `heads`.
        depth: blocks.
        heads: of the attention.
        dropout: after the embedding, in the attention, and where a branch ends.
        tied: the output uses the weights of the embedding; else C x width weights of its own.

    Raises:
        BadInput: `width` is not a multiple of `heads`, or a size is not positive.
    """

    def __init__(
        self,
        classes: int,
        length: int,
        *,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        tied: bool = True,
    ) -> None:
        super().__init__()
        if min(classes, length, width, depth, heads) < 1 or width % heads:
            raise BadInput(
                f"a transformer cannot have {classes} classes, length {length}, width {width}, depth {depth} and {heads} heads; "
                f"give positive sizes and a width that the heads divide"
            )
        self.embedding, self.position = nn.Embedding(classes, width), nn.Embedding(length, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.output = None if tied else nn.Linear(width, classes, bias=False)
        self._begin(depth)

    def _begin(self, depth: int) -> None:
        """Draw the initial weights."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0.0, 0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for last in self.ends():
            nn.init.normal_(last.weight, 0.0, 0.02 / math.sqrt(2 * depth))

    def ends(self) -> Iterator[nn.Linear]:
        """Yield the linear layers that end a branch."""
        for module in self.modules():
            if isinstance(module, TransformerBlock):
                yield module.attention.merge
                yield module.shrink

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token numbers to scores of the next token.

        Args:
            tokens: int64 of shape (B, T), T at most the model's length.

        Returns:
            Scores of shape (B, C, T).

        Raises:
            BadInput: windows are longer than the model has positions.
        """
        T = tokens.shape[1]
        if self.position.num_embeddings < T:
            raise BadInput(
                f"a window of {T} tokens is longer than the {self.position.num_embeddings} positions of the transformer; "
                f"cut it, or make the model longer"
            )
        x = self.embedding(tokens) + self.position(torch.arange(T, device=tokens.device))
        x = self.norm(self.blocks(self.dropout(x)))
        scores: Tensor = F.linear(x, self.embedding.weight) if self.output is None else self.output(x)
        return scores.transpose(1, 2)


class TransformerBlock(nn.Module):
    """Attention, then two linear layers with GELU between them, each beside its shortcut."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), CausalAttention(width, heads, dropout)
        self.norm, self.grow, self.shrink = (
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, width) to the same shape."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.shrink(F.gelu(self.grow(self.norm(x)))))  # type: ignore[no-any-return]


class CausalAttention(nn.Module):
    """Attention in which no position sees a later one."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.split, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.dropout = heads, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, width) to the same shape."""
        B, T, width = x.shape
        query, key, value = self.split(x).view(B, T, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        chance = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=chance, is_causal=True)
        return self.merge(mixed.transpose(1, 2).reshape(B, T, width))  # type: ignore[no-any-return]
