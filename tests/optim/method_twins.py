"""The training methods written naively in numpy, on one vector of weights; no code in common with the package."""

import numpy as np

CURVATURE = np.array([[3.0, 0.7, 0.0], [0.7, 1.0, -0.3], [0.0, -0.3, 0.2]])
CENTRES = np.array([[1.0, -2.0, 0.5], [0.4, -1.0, 1.5], [1.9, -2.2, -0.5], [-0.3, 0.2, 0.1], [0.0, -3.0, 2.0]])
START = np.array([-1.5, 0.3, 2.0])
QUARTIC = 0.05


def slope(b, w):
    """Gradient of batch b: a turned valley with its own centre, and a quartic term so that curvature changes."""
    return CURVATURE @ (w - CENTRES[b % len(CENTRES)]) + 4 * QUARTIC * w**3


def full_slope(w):
    return sum(slope(b, w) for b in range(len(CENTRES))) / len(CENTRES)


class Momentum:
    """Heavy ball with L2 decay, or Nesterov's form."""

    def __init__(self, momentum=0.9, decay=0.0, nesterov=False):
        self.momentum, self.decay, self.nesterov, self.v = momentum, decay, nesterov, 0.0

    def move(self, w, g, lr):
        g = g + self.decay * w
        self.v = self.momentum * self.v + g
        return w - lr * (g + self.momentum * self.v if self.nesterov else self.v)


class Adam:
    """Kingma & Ba 2015."""

    def __init__(self, decay=0.0):
        self.decay, self.m, self.v, self.t = decay, 0.0, 0.0, 0

    def move(self, w, g, lr):
        g = g + self.decay * w
        self.t += 1
        self.m, self.v = 0.9 * self.m + 0.1 * g, 0.999 * self.v + 0.001 * g**2
        return w - lr * self.m / (1 - 0.9**self.t) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)


def sam(make, rates, rho, adaptive=False, eta=0.01):
    w, base = START, make()
    for t, lr in enumerate(rates):
        g = slope(t, w)
        scale = np.abs(w) + eta if adaptive else np.ones(3)
        w = base.move(w, slope(t, w + rho * scale**2 * g / np.linalg.norm(scale * g)), lr)
        yield w


def conservative(make, rates, lam, inner_steps, fresh=False):
    w, base = START, make()
    for t, lr in enumerate(rates):
        x, base = w, make() if fresh else base
        for _ in range(inner_steps):
            w = base.move(w, slope(t, w) + lam * (w - x), lr)
        yield w


def entropy_sgd(make, rates, gamma, scoping, steps, lr, noise, alpha, draws, times_gamma):
    """`draws[t, i]`: the normal numbers of inner step i; each inner step has a batch of its own."""
    w, base, calls = START, make(), 0
    for t, outer in enumerate(rates):
        scope, walker, mu = gamma * (1 + scoping) ** t, w, w
        for i in range(steps):
            pull = slope(calls, walker) - scope * (w - walker)
            walker = walker - lr * pull + np.sqrt(lr) * noise * draws[t, i]
            mu = (1 - alpha) * mu + alpha * walker
            calls += 1
        w = base.move(w, (scope if times_gamma else 1) * (w - mu), outer)
        yield w


def svrg(make, rates, every):
    w, base = START, make()
    for t, lr in enumerate(rates):
        if t % every == 0:
            snapshot = w
        w = base.move(w, slope(t, w) - slope(t, snapshot) + full_slope(snapshot), lr)
        yield w


def post_local(make, rates, count, period, start):
    x, bases = [START] * count, [make() for _ in range(count)]
    for t, lr in enumerate(rates):
        g = [slope(count * t + k, x[k]) for k in range(count)]
        if t < start:
            g = [sum(g) / count] * count
        x = [bases[k].move(x[k], g[k], lr) for k in range(count)]
        mean = sum(x) / count
        if t >= start and (t + 1 - start) % period == 0:
            x = [mean] * count
        yield mean


def elastic(make, rates, count, period, alpha, beta):
    x, c, bases = [START] * count, START, [make() for _ in range(count)]
    for t, lr in enumerate(rates):
        x = [bases[k].move(x[k], slope(count * t + k, x[k]), lr) for k in range(count)]
        if (t + 1) % period == 0:
            mean = sum(x) / count
            x, c = [xk - alpha * (xk - c) for xk in x], c + beta * (mean - c)
        yield c
