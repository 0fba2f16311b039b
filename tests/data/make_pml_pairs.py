"""Freezes values and gradients of pytorch-metric-learning's pair losses for `tests/losses/frozen.py`.

pip install torch==2.13.0 pytorch-metric-learning==2.9.0
python tests/data/make_pml_pairs.py
"""

from pathlib import Path

import numpy as np
import torch
from pytorch_metric_learning import distances, losses, miners, reducers


def recorded():
    """Name → function of (embeddings, labels)."""
    squared = distances.LpDistance(power=2)
    raw_product = distances.DotProductSimilarity(normalize_embeddings=False)

    def with_miner(loss, miner):
        return lambda x, y: loss(x, y, miner(x, y))

    semi_hard = miners.TripletMarginMiner(0.3, "semihard")
    hard = miners.TripletMarginMiner(0.3, "hard")
    return {
        "contrastive": losses.ContrastiveLoss(),
        "contrastive-cosine": losses.ContrastiveLoss(1, 0.5, distance=distances.CosineSimilarity()),
        "triplet": losses.TripletMarginLoss(0.2),
        "triplet-all": losses.TripletMarginLoss(0.2, reducer=reducers.MeanReducer()),
        "triplet-squared": losses.TripletMarginLoss(0.2, distance=squared),
        "triplet-swap": losses.TripletMarginLoss(0.2, swap=True),
        "triplet-soft": losses.TripletMarginLoss(0.0, smooth_loss=True),
        "triplet-semi-hard": with_miner(losses.TripletMarginLoss(0.3), semi_hard),
        "triplet-hard": with_miner(losses.TripletMarginLoss(0.3), hard),
        "triplet-angular": with_miner(losses.TripletMarginLoss(0.2), miners.AngularMiner(40)),
        "batch-hard": with_miner(
            losses.TripletMarginLoss(0.2, reducer=reducers.MeanReducer()), miners.BatchHardMiner()
        ),
        "easy-positive": with_miner(losses.ContrastiveLoss(), miners.BatchEasyHardMiner("easy", "semihard")),
        "semi-positive": with_miner(losses.ContrastiveLoss(), miners.BatchEasyHardMiner("semihard", "hard")),
        "all-hard": with_miner(losses.ContrastiveLoss(), miners.BatchEasyHardMiner("all", "hard")),
        "margin": losses.MarginLoss(),
        "n-pairs": losses.NPairsLoss(distance=raw_product),
        "lifted": losses.LiftedStructureLoss(),
        "lifted-generalized": losses.GeneralizedLiftedStructureLoss(),
        "multi-similarity": losses.MultiSimilarityLoss(),
        "multi-similarity-mined": with_miner(losses.MultiSimilarityLoss(2, 40), miners.MultiSimilarityMiner(0.1)),
        "circle": losses.CircleLoss(),
        "sup-con": losses.SupConLoss(),
        "nt-xent": losses.NTXentLoss(),
        "fast-ap": losses.FastAPLoss(),
    }


def main():
    rng = np.random.default_rng(11)
    labels = np.repeat(np.arange(5), 3)
    embeddings = rng.normal(size=(5, 6))[labels] + rng.normal(size=(15, 6))
    order = rng.permutation(15)
    labels, embeddings = labels[order], embeddings[order]
    record = {"labels": labels.astype(np.int32), "embeddings": embeddings}
    for name, loss in recorded().items():
        x = torch.tensor(embeddings, requires_grad=True)
        value = loss(x, torch.tensor(labels))
        value.backward()
        record[f"{name}/loss"], record[f"{name}/gradient"] = value.item(), x.grad.numpy()
    record.update(memory(embeddings, labels))
    np.savez_compressed(Path(__file__).with_name("pml_pairs.npz"), **record)


def memory(embeddings, labels):
    """Four batches of five through a memory of twelve."""
    wrapped = losses.CrossBatchMemory(losses.ContrastiveLoss(), embedding_size=6, memory_size=12)
    record = {}
    rows = np.concatenate([np.arange(15), np.arange(5)])
    for step in range(4):
        chosen = rows[5 * step : 5 * step + 5]
        x = torch.tensor(embeddings[chosen] * (1 + step), requires_grad=True)
        value = wrapped(x, torch.tensor(labels[chosen]))
        value.backward()
        record[f"memory/{step}/loss"], record[f"memory/{step}/gradient"] = value.item(), x.grad.numpy()
    return record


if __name__ == "__main__":
    main()
