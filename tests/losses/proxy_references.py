"""Proxy losses in numpy, float64, written from the formulas with loops: slow, plain and independent of the package."""

import math

import numpy as np


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax_loss(logits, labels):
    """Mean of -log softmax at the label."""
    terms = []
    for row, y in zip(logits, labels, strict=True):
        shifted = row - row.max()
        terms.append(np.log(np.exp(shifted).sum()) - shifted[y])
    return np.mean(terms)


def nearest(z, q, c, m):
    return max(z @ q[c * m + k] for k in range(m))


def class_similarities(z, q, classes, m):
    return np.array([[nearest(row, q, c, m) for c in range(classes)] for row in z])


def direction(z_i, q_j, q_y):
    a, b = q_j - z_i, q_y - z_i
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def own_proxy(z_i, q, y, m):
    return max((q[y * m + k] for k in range(m)), key=lambda p: z_i @ p)


def proxy_anchor(labels, z, q, classes, m=1, alpha=32.0, margin=0.1, gamma=0.0):
    positive, negative, present = 0.0, 0.0, 0
    for j, p in enumerate(q):
        pulls = [math.exp(-alpha * (x @ p - margin)) for x, y in zip(z, labels, strict=True) if y == j // m]
        pushes = []
        for x, y in zip(z, labels, strict=True):
            if y != j // m:
                r = direction(x, p, own_proxy(x, q, y, m)) if gamma else 0.0
                pushes.append(math.exp(alpha * (x @ p + margin - gamma * r)))
        present += bool(pulls)
        positive += math.log1p(sum(pulls))
        negative += math.log1p(sum(pushes))
    return positive / present + negative / len(q)


def proxy_nca(labels, z, q, classes, m=1, scale=1.0, gamma=0.0):
    terms = []
    for x, y in zip(z, labels, strict=True):
        mine = own_proxy(x, q, y, m)
        others = 0.0
        for j, p in enumerate(q):
            if j // m != y:
                r = direction(x, p, mine) if gamma else 0.0
                others += math.exp(-scale * (np.sum((x - p) ** 2) + gamma * r))
        terms.append(-math.log(math.exp(-scale * np.sum((x - mine) ** 2)) / others))
    return np.mean(terms)


def proxy_nca_plus_plus(labels, z, q, classes, m=1, temperature=1 / 9):
    terms = []
    for x, y in zip(z, labels, strict=True):
        squares = np.array([min(np.sum((x - q[c * m + k]) ** 2) for k in range(m)) for c in range(classes)])
        weights = np.exp(-squares / temperature)
        terms.append(-math.log(weights[y] / weights.sum()))
    return np.mean(terms)


def normalized_softmax(labels, z, q, classes, m=1, temperature=0.05):
    return softmax_loss(class_similarities(z, q, classes, m) / temperature, labels)


def cos_face(labels, z, q, classes, m=1, scale=64.0, margin=0.35):
    logits = class_similarities(z, q, classes, m)
    logits[np.arange(len(labels)), labels] -= margin
    return softmax_loss(scale * logits, labels)


def arc_face(labels, z, q, classes, m=1, scale=64.0, margin=0.5):
    logits = class_similarities(z, q, classes, m)
    for i, y in enumerate(labels):
        theta = math.acos(logits[i, y])
        widened = math.cos(theta + margin) if theta < math.pi - margin else logits[i, y] - margin * math.sin(margin)
        logits[i, y] = widened
    return softmax_loss(scale * logits, labels)


def soft_triple(labels, z, q, classes, m, scale=20.0, gamma=0.1, margin=0.01, tau=0.2):
    logits = np.zeros((len(z), classes))
    for i, x in enumerate(z):
        for c in range(classes):
            cosines = q[c * m : (c + 1) * m] @ x
            weights = np.exp(cosines / gamma)
            logits[i, c] = (weights / weights.sum()) @ cosines - margin * (c == labels[i])
    spread = 0.0
    for c in range(classes):
        for t in range(m):
            for s in range(t):
                spread += math.sqrt(2 + 1e-5 - 2 * q[c * m + s] @ q[c * m + t])
    return softmax_loss(scale * logits, labels) + (tau * spread / (classes * m * (m - 1)) if m > 1 else 0)


def proxy_gml(labels, z, q, classes, m, ratio=0.05, proxy_weight=0.3):
    kept = max(math.ceil(ratio * classes * m), m + 1)
    terms = []
    for x, y in zip(z, labels, strict=True):
        cosines = q @ x
        order = sorted(range(len(q)), key=lambda j: -(cosines[j] + 1000 * (j // m == y)))[:kept]
        logits = {}
        for j in order:
            logits[j // m] = logits.get(j // m, 0.0) + cosines[j]
        terms.append(-math.log(math.exp(logits[y]) / sum(math.exp(value) for value in logits.values())))
    sums = np.array([q[c * m : (c + 1) * m].sum(axis=0) for c in range(classes)])
    return np.mean(terms) + proxy_weight * softmax_loss(q @ sums.T, np.arange(len(q)) // m)
