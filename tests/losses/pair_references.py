"""Every pair loss once more, in numpy float64, as slow and as close to its equation as can be."""

from itertools import product

import numpy as np


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def distance(x, kind="euclidean"):
    if kind == "cosine":
        return 1 - unit(x) @ unit(x).T
    squares = ((x[:, None] - x[None]) ** 2).sum(-1)
    return squares if kind == "squared" else np.sqrt(squares)


def positives(y, i):
    return [j for j in range(len(y)) if y[j] == y[i] and j != i]


def negatives(y, i):
    return [j for j in range(len(y)) if y[j] != y[i]]


def pairs_of(y, others):
    return [(i, j) for i in range(len(y)) for j in others(y, i)]


def triplets_of(y):
    return [(a, p, n) for a in range(len(y)) for p, n in product(positives(y, a), negatives(y, a))]


def mean(values, kind="all"):
    values = [v for v in values if v > 0] if kind == "nonzero" else list(values)
    return float(np.sum(values) / len(values)) if values else 0.0


def lse(values):
    return float(np.log(np.sum(np.exp(values)))) if len(values) else -np.inf


def softplus(v):
    return float(np.logaddexp(0, v))


def hinge(v):
    return max(v, 0.0)


def cosine(u, v):
    lengths = np.linalg.norm(u) * np.linalg.norm(v)
    return float(u @ v / lengths) if lengths > 0 else 0.0


def contrastive(y, x, positive_margin=0.0, negative_margin=1.0, power=2, average="nonzero", kind="euclidean"):
    d = distance(unit(x), kind)
    pull = [hinge(d[i, j] - positive_margin) ** power / power for i, j in pairs_of(y, positives)]
    push = [hinge(negative_margin - d[i, j]) ** power / power for i, j in pairs_of(y, negatives)]
    if average == "anchors":
        return (sum(pull) + sum(push)) / len(y)
    return mean(pull, average) + mean(push, average)


def remembered_contrastive(y, x, fixed, positive_margin=0.0, negative_margin=1.0):
    """The batch against a memory that holds the same batch: `fixed`, since a memory carries no gradient."""
    d = np.linalg.norm(unit(x)[:, None] - unit(fixed)[None], axis=-1)
    pull = [hinge(d[i, j] - positive_margin) for i, j in pairs_of(y, positives)]
    push = [hinge(negative_margin - d[i, j]) for i, j in pairs_of(y, negatives)]
    return mean(pull, "nonzero") + mean(push, "nonzero")


def triplet(
    y, x, m=0.2, chosen="all", soft=False, swap=False, gamma=0.0, average="nonzero", kind="euclidean", raw=False
):
    x = x if raw else unit(x)
    d = distance(x, kind)
    losses = []
    for a, p, n in triplets_of(y):
        gap = d[a, n] - d[a, p]
        if (chosen == "hard" and gap > 0) or (chosen == "semi_hard" and not 0 < gap <= m):
            continue
        far = min(d[a, n], d[p, n]) if swap else d[a, n]
        v = d[a, p] - far - gamma * cosine(x[n] - x[a], x[p] - x[a])
        losses.append(softplus(v) if soft else hinge(v + m))
    return sum(losses) / len(y) if average == "anchors" else mean(losses, average)


def triplet_semi_hard(y, x, m=0.2, kind="squared", raw=False):
    d = distance(x if raw else unit(x), kind)
    losses = []
    for a, p in pairs_of(y, positives):
        candidates = [d[a, n] for n in negatives(y, a)]
        if candidates:
            outside = [c for c in candidates if c > d[a, p]]
            losses.append(hinge(d[a, p] - (min(outside) if outside else max(candidates)) + m))
    return mean(losses)


def triplet_batch_hard(y, x, m=0.2, soft=False, kind="euclidean", raw=False):
    d = distance(x if raw else unit(x), kind)
    losses = []
    for a in range(len(y)):
        if positives(y, a) and negatives(y, a):
            gap = max(d[a, positives(y, a)]) - min(d[a, negatives(y, a)])
            losses.append(softplus(gap) if soft else hinge(gap + m))
    return mean(losses)


def margin(y, x, beta, alpha=0.2, nu=0.0, triplets=False):
    """`beta` holds one boundary, or one for each class; with `triplets` a pair counts once for each of them."""
    d = distance(unit(x))
    of = beta if len(beta) > 1 else np.repeat(beta, max(y) + 1)
    pulled, pushed = pairs_of(y, positives), pairs_of(y, negatives)
    if triplets:
        pulled, pushed = ([(t[0], t[side]) for t in triplets_of(y)] for side in (1, 2))
    pull = [hinge(d[i, j] - of[y[i]] + alpha) for i, j in pulled]
    push = [hinge(of[y[i]] - d[i, j] + alpha) for i, j in pushed]
    count = sum(v > 0 for v in pull + push)
    penalty = nu * sum(of[y[i]] for i, _ in pulled)
    return (sum(pull + push) + penalty) / count if count else 0.0


def n_pairs(y, x, penalty=0.0, normalize=False):
    x = unit(x) if normalize else x
    chosen = {}
    for i in range(len(y)):
        if y[i] not in chosen and positives(y, i):
            chosen[y[i]] = (i, positives(y, i)[0])
    logits = {i: [x[i] @ x[k] for _, k in chosen.values()] for i, _ in chosen.values()}
    return mean([lse(logits[i]) - x[i] @ x[j] for i, j in chosen.values()]) + penalty * mean((x**2).sum(1))


def n_pairs_multilabel(y, x):
    losses = []
    for i in range(len(y)):
        others = [j for j in range(len(y)) if j != i]
        shared = np.array([y[i] @ y[j] for j in others], float)
        if shared.sum():
            logits = np.array([x[i] @ x[j] for j in others])
            losses.append(lse(logits) - shared / shared.sum() @ logits)
    return mean(losses)


def lifted_structure(y, x, m=1.0, kind="euclidean", raw=False):
    d = distance(x if raw else unit(x), kind)
    losses = []
    for i, j in pairs_of(y, positives):
        energy = lse([m - d[i, k] for k in negatives(y, i)] + [m - d[j, k] for k in negatives(y, j)]) + d[i, j]
        losses.append(hinge(energy) ** 2 / 2)
    return mean(losses)


def generalized_lifted_structure(y, x, m=1.0):
    d = distance(unit(x))
    return mean(
        [
            hinge(lse(d[i, positives(y, i)]) + lse(m - d[i, negatives(y, i)]))
            for i in range(len(y))
            if positives(y, i) and negatives(y, i)
        ]
    )


def multi_similarity(y, x, alpha=2.0, beta=50.0, base=0.5, gamma=0.0, epsilon=None):
    x = unit(x)
    s = x @ x.T
    losses = []
    for i in range(len(y)):
        p, n = positives(y, i), negatives(y, i)
        if epsilon is not None:
            lowest, highest = (min(s[i, p]) if p else np.inf), (max(s[i, n]) if n else -np.inf)
            p, n = [j for j in p if s[i, j] - epsilon < highest], [k for k in n if s[i, k] + epsilon > lowest]
        r = {k: 0.0 for k in n}
        if gamma and p:
            hardest = min(p, key=lambda j: s[i, j])
            r = {k: cosine(x[k] - x[i], x[hardest] - x[i]) for k in n}
        pull = np.log1p(sum(np.exp(-alpha * (s[i, j] - base)) for j in p)) / alpha
        push = np.log1p(sum(np.exp(beta * (s[i, k] - base - gamma * r[k])) for k in n)) / beta
        losses.append(pull + push)
    return mean(losses)


def circle(y, x, m=0.4, scale=80.0, fixed=None):
    """`fixed` holds the embeddings of which the weights are made: they carry no gradient."""
    s = unit(x) @ unit(x).T
    w = s if fixed is None else unit(fixed) @ unit(fixed).T
    losses = []
    for i in range(len(y)):
        p, n = positives(y, i), negatives(y, i)
        if p and n:
            pull = lse([-scale * hinge(1 + m - w[i, j]) * (s[i, j] - 1 + m) for j in p])
            push = lse([scale * hinge(w[i, k] + m) * (s[i, k] - m) for k in n])
            losses.append(softplus(pull + push))
    return mean(losses, "nonzero")


def sup_con(y, x, t=0.1):
    s = unit(x) @ unit(x).T / t
    everyone = range(len(y))
    return mean(
        [
            -np.mean([s[i, p] - lse([s[i, k] for k in everyone if k != i]) for p in positives(y, i)])
            for i in everyone
            if positives(y, i)
        ]
    )


def nt_xent(y, x, t=0.07):
    s = unit(x) @ unit(x).T / t
    return mean([lse([s[i, p], *s[i, negatives(y, i)]]) - s[i, p] for i, p in pairs_of(y, positives)])


def fast_ap(y, x, bins=10):
    d = distance(unit(x), "squared")
    losses = []
    for i in range(len(y)):
        p, everyone = positives(y, i), [j for j in range(len(y)) if j != i]
        if not p:
            continue
        total = total_positive = precision = 0.0
        for edge in np.linspace(0, 4, bins + 1):
            here = sum(hinge(1 - abs(d[i, j] - edge) * bins / 4) for j in p)
            total_positive += here
            total += sum(hinge(1 - abs(d[i, j] - edge) * bins / 4) for j in everyone)
            precision += here * total_positive / total if total else 0.0
        losses.append(1 - precision / len(p))
    return mean(losses)
