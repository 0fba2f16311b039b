"""Writes pml_proxy_golden.npz: values and gradients of pytorch-metric-learning's proxy losses, float64.

Needs `pip install torch pytorch-metric-learning`; run as `python tests/data/make_pml_proxy_golden.py`.
"""

from pathlib import Path

import numpy as np
import torch
from pytorch_metric_learning import losses, reducers, regularizers

CLASSES, DIM, BATCH = 9, 6, 16
# The paper's ProxyNCA leaves the sample's own class out of the sum: log(e^L - 1) for each sample's L of the library.
EXCLUDED = "ProxyNCALoss, own class excluded"
# Loss → constructor arguments, and how to read and write its proxies as (C·m, dim).
LOSSES = {
    "ProxyAnchorLoss": ({}, "proxies", False),
    "ProxyNCALoss": ({"softmax_scale": 9}, "proxies", False),
    "NormalizedSoftmaxLoss": ({}, "W", True),
    "CosFaceLoss": ({}, "W", True),
    "ArcFaceLoss": ({}, "W", True),
    "SubCenterArcFaceLoss": ({}, "W", True),
    "SoftTripleLoss": ({}, "fc", True),
    EXCLUDED: ({"softmax_scale": 1, "reducer": reducers.DoNothingReducer()}, "proxies", False),
}


def batches():
    rng = np.random.default_rng(7)
    labels = rng.integers(0, CLASSES - 2, BATCH)
    x = rng.normal(size=(BATCH, DIM))
    centers = rng.normal(size=(CLASSES, DIM))
    yield "random", labels, x, None
    yield "trained", labels, centers[labels] + 0.1 * x, centers
    yield "one_class", np.zeros(BATCH, int), x, None


def measure(name, labels, x, centers):
    options, attribute, transposed = LOSSES[name]
    loss = getattr(losses, name.split(",")[0])(num_classes=CLASSES, embedding_size=DIM, **options).double()
    parameter = getattr(loss, attribute)
    if centers is not None:
        per_class = parameter.numel() // (CLASSES * DIM)
        near = np.repeat(centers, per_class, axis=0)
        near = near + 0.05 * np.random.default_rng(8).normal(size=near.shape)
        parameter.data = torch.tensor(near.T.copy() if transposed else near)
    inputs = torch.tensor(x, requires_grad=True)
    value = loss(inputs, torch.tensor(labels))
    if name == EXCLUDED:
        value = torch.log(torch.expm1(value["loss"]["losses"])).mean()
    value.backward()
    proxies, gradient = parameter.detach().numpy(), parameter.grad.numpy()
    if transposed:
        proxies, gradient = proxies.T, gradient.T
    return {"proxies": proxies, "value": value.item(), "dx": inputs.grad.numpy(), "dp": gradient}


def regular_face():
    centers = torch.tensor(np.random.default_rng(9).normal(size=(CLASSES, DIM)), requires_grad=True)
    value = regularizers.RegularFaceRegularizer()(centers)
    value.backward()
    parts = {"proxies": centers.detach().numpy(), "value": value.item(), "dp": centers.grad.numpy()}
    return {f"RegularFace/{part}": np.asarray(array) for part, array in parts.items()}


def main():
    torch.manual_seed(0)
    arrays = {}
    for batch, labels, x, centers in batches():
        arrays |= {f"{batch}/labels": labels, f"{batch}/embeddings": x}
        for name in LOSSES:
            for part, array in measure(name, labels, x, centers).items():
                arrays[f"{batch}/{name}/{part}"] = np.asarray(array)
    arrays |= regular_face()
    np.savez_compressed(Path(__file__).with_name("pml_proxy_golden.npz"), **arrays)


if __name__ == "__main__":
    main()
