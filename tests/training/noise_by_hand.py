"""The gradient noise scale of a run of plain SGD, from stored float64 gradients of the parts of every batch."""

import numpy as np
import torch
from torch.nn import functional
from training_problems import points

from gengap.data.order import permutation

UNREAD = 3  # updates at the start


def gradient(net, x, y):
    loss = functional.cross_entropy(net(x), y)
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(net.parameters()))])


def solved(parts, sizes):
    """|G|^2 and tr(Sigma) from the squared norms of the gradients of parts and of the whole: two equations.

    The mean gradient of b samples has E|g|^2 = |G|^2 + tr(Sigma) / b (McCandlish et al. 2018, appendix A.1).
    """
    total = sum(sizes)
    shares = np.array(sizes) / total
    whole = sum(w * g for w, g in zip(shares.tolist(), parts, strict=True))
    small = sum(w * float(g @ g) for w, g in zip((shares**2).tolist(), parts, strict=True)) / (shares**2).sum()
    size = (shares**2).sum() / (shares**2 / np.array(sizes)).sum()  # that of a part where all are alike
    return np.linalg.solve([[1, 1 / size], [1, 1 / total]], [small, float(whole @ whole)])


def by_hand(net, cut, *, batch, epochs, lr=0.1):
    """Train, and average over all updates but the first three and those of one part, each weighing 0.99 of the next."""
    x, y = points()
    optimizer, found, step = torch.optim.SGD(net.parameters(), lr=lr), [], 0
    for epoch in range(epochs):
        for rows in permutation(0, epoch, len(y)).split(batch):
            sizes = [size for size in cut(len(rows)) if size]
            parts = [gradient(net, x[part], y[part]) for part in rows.split(sizes)]
            if step >= UNREAD and len(sizes) > 1:
                found.append(solved(parts, sizes))
            optimizer.zero_grad()
            functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
            step += 1
    weights = 0.99 ** np.arange(len(found))[::-1]
    norm, trace = weights @ np.array(found) / weights.sum()
    return {"norm": norm, "trace": trace, "observations": len(found), "steps": step}
