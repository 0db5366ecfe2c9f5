"""What the tests of K-FAC share: filled networks, dense Fisher matrices, and one step."""

import numpy as np
import torch

from gengap.optim.kfac import Kfac

EXACT = {"samples": None, "kl_clip": None, "inverse_every": 1}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(model, scale=0.5):
    """Weights of a fixed draw, in float64."""
    model = model.double()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(scale * drawn(*p.shape, seed=100 + i))
    return model


def output_fisher(likelihood, f):
    """Fisher matrix of one sample's outputs, shape (C, C), from its definition."""
    f = f.detach().numpy()
    if likelihood == "softmax":
        p = np.exp(f) / np.exp(f).sum()
        return np.diag(p) - np.outer(p, p)
    if likelihood == "bernoulli":
        return np.diag(np.exp(-f) / (1 + np.exp(-f)) ** 2)
    return np.eye(len(f))


def dense_fisher(model, x, likelihood):
    """Mean over samples of J^T F J, all parameters in order, shape (P, P)."""
    total = 0
    for row in x:
        outputs = model(row[None])[0]
        slopes = [torch.autograd.grad(f, list(model.parameters()), retain_graph=True) for f in outputs]
        J = np.stack([np.concatenate([g.numpy().ravel() for g in slope]) for slope in slopes])
        total = total + J.T @ output_fisher(likelihood, outputs) @ J
    return total / len(x)


def factors(optimizer, layer):
    return optimizer.state[layer.weight]["A"].numpy(), optimizer.state[layer.weight]["G"].numpy()


def in_parameter_order(A, G, inputs):
    """kron(G, A) has the bias after every row of weights; autograd has all biases after all weights."""
    outputs = len(G)
    index = np.arange(outputs * (inputs + 1)).reshape(outputs, inputs + 1)
    order = np.concatenate([index[:, :inputs].ravel(), index[:, inputs]])
    return np.kron(G, A)[np.ix_(order, order)]


def one_step(model, x, y, loss, **options):
    optimizer = Kfac(model, **{"lr": 1.0, "momentum": 0.0} | options)
    loss(model(x), y).backward()
    optimizer.step()
    return optimizer


def half_square(outputs, y):
    return 0.5 * (outputs - y).square().sum(1).mean()
