"""One small float64 model of each kind that a user may bring, alive and in training mode, with its loss and its data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

N, C, T = 24, 3, 5  # samples, classes, positions


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.out = kind(3, 4, num_layers=2, dropout=0.3, batch_first=True), nn.Linear(4, C)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


class Encoder(nn.Module):
    """A transformer whose samples are padded to different lengths, and whose padded positions count."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.2, activation="gelu", batch_first=True)
        self.out = nn.Linear(4, C)

    def forward(self, x, padded):
        return self.out(self.layer(x, src_key_padding_mask=padded).mean(1))


class LanguageModel(nn.Module):
    """Causal attention by `scaled_dot_product_attention`; the table of tokens is also the last layer; (B, C, T)."""

    def __init__(self, vocabulary=6, width=4):
        super().__init__()
        self.table, self.mix = nn.Embedding(vocabulary, width), nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, vocabulary, bias=False)
        self.out.weight = self.table.weight

    def forward(self, tokens):
        x = self.table(tokens)
        query, key, value = self.mix(x).unsqueeze(1).chunk(3, -1)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True).squeeze(1)
        return self.out(F.layer_norm(x + seen, x.shape[-1:])).transpose(1, 2)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = nn.Linear(4, 3), nn.Bilinear(2, 3, 3), nn.Linear(3, C)

    def forward(self, left, right):
        return self.out(torch.tanh(self.right(right, torch.tanh(self.left(left)))))


class Rows(Dataset):
    """A data set of (dict, class) items."""

    def __len__(self):
        return N

    def __getitem__(self, i):
        return {"left": draw(4, seed=i), "right": draw(2, seed=i + N)}, i % C


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def classes(*shape, high=C, seed=9):
    return torch.randint(high, (N, *shape), generator=torch.Generator().manual_seed(seed))


def mlp(*layers):
    return nn.Sequential(nn.Linear(4, 6), *layers, nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, C))


def convolution(norm):
    return nn.Sequential(nn.Conv2d(2, 4, 2), norm, nn.GELU(), nn.Flatten(), nn.Linear(16, C))


def frozen():
    model = mlp()
    model[0].requires_grad_(False)
    return model


def huber(outputs, targets):
    return F.huber_loss(outputs, targets, delta=0.7)


@dataclass(frozen=True)
class Kind:
    """What a user brings.

    Attributes:
        model: makes the network.
        data: makes the data.
        loss: a name or a function.
        options: of `gengap.loss_function`.
        only: names to measure, for all measures that take them.
        coupled: batch norm makes the loss of a sample depend on the others.
    """

    model: Callable[[], nn.Module]
    data: Callable[[], Any]
    loss: Any = "cross_entropy"
    options: dict[str, Any] = field(default_factory=dict)
    only: str | None = None
    coupled: bool = False


def vectors():
    return draw(N, 4), classes()


def images():
    return draw(N, 2, 3, 3), classes()


def padded():
    lengths = torch.arange(N) % T + 1
    return {"x": draw(N, T, 4), "padded": torch.arange(T) >= lengths[:, None]}, classes()


KINDS = {
    "mlp": Kind(mlp, vectors),
    "shuffling loader": Kind(mlp, lambda: DataLoader(list(zip(*vectors(), strict=True)), batch_size=5, shuffle=True)),
    "dict items": Kind(TwoInputs, Rows),
    "several inputs": Kind(TwoInputs, lambda: ((draw(N, 4), draw(N, 2, seed=1)), classes())),
    "embedding": Kind(
        lambda: nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Tanh(), nn.Linear(6, C)),
        lambda: (classes(2, high=7), classes()),
    ),
    "batch norm, running": Kind(lambda: convolution(nn.BatchNorm2d(4)), images),
    "batch norm, batch": Kind(
        lambda: convolution(nn.BatchNorm2d(4)), images, options={"batch_norm": "batch", "batch_size": 12}, coupled=True
    ),
    "batch norm, recompute": Kind(
        lambda: convolution(nn.BatchNorm2d(4)), images, options={"batch_norm": "recompute"}, coupled=True
    ),
    "group norm": Kind(lambda: convolution(nn.GroupNorm(2, 4)), images),
    "layer norm": Kind(lambda: mlp(nn.LayerNorm(6)), vectors),
    "lstm": Kind(lambda: Recurrent(nn.LSTM), lambda: (draw(N, T, 3), classes())),
    "gru": Kind(lambda: Recurrent(nn.GRU), lambda: (draw(N, T, 3), classes())),
    "padded transformer": Kind(Encoder, padded),
    "language model": Kind(LanguageModel, lambda: (classes(T, high=6), classes(T, high=6, seed=1))),
    "frozen": Kind(frozen, vectors),
    "some weights": Kind(mlp, vectors, only="*.weight"),
    "own loss": Kind(mlp, lambda: (draw(N, 4), draw(N, C, seed=1)), loss=huber),
}


def live(kind):
    """A model as a user holds it in the middle of training, with gradients and used statistics."""
    torch.manual_seed(3)
    model = kind.model().double().train()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for name, buffer in model.named_buffers():
        if name.endswith(("mean", "var")):
            buffer += torch.linspace(0.1, 0.5, len(buffer))
    return model
