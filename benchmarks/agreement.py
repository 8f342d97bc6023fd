"""Do scores depend on how networks are trained together, or on the device?

`python benchmarks/agreement.py`: the same seeds are trained in several ways, on a shorter schedule
of the same kind (10 epochs of 12,000 pairs, a new goal every 2, x + y in the last 2), and scored
with the primary measure. Sums in another order round differently, and training amplifies that:
single networks may differ, their distribution must not. `same bits` counts networks whose weights
are the same to the bit.
"""

import argparse
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from modvar_lib import data, metrics, models, training
from modvar_lib.analysis import study
from modvar_lib.settings import Settings

PRIMARY = study.primary()


def together(settings, splits) -> list[dict]:
    return [trained.weights for trained in training.train(settings, splits)]


def one_lot(settings, splits) -> list[dict]:
    """Every operation on all cores."""
    with tqdm(disable=True) as bar:
        return [
            weights
            for _, weights, _ in training.train_lot(settings, splits, bar, threading.Event())
        ]


WAYS = {
    "lots, one per core": together,
    "one at a time": lambda settings, splits: [together(run, splits)[0] for run in settings.runs()],
    "one lot on all cores": one_lot,
}
if torch.cuda.is_available():
    WAYS["cuda"] = lambda settings, splits: together(
        settings.model_copy(update={"device": "cuda"}), splits
    )


def score(run: Settings, weights: dict, digits: data.Digits) -> float:
    """The primary measure of one network."""
    network = models.initial(run.architecture, run.seed)
    network.load_state_dict(weights)
    draws = torch.from_numpy(data.evaluation_pairs(run.seed, 2_000, len(digits)))
    with torch.no_grad():
        rows = metrics.METRICS["activation_change"].rows(
            metrics.Subject(network, (digits, digits), draws, run.seed)
        )
    (row,) = study.select(
        pd.DataFrame(rows), **{name: PRIMARY[name] for name in ("measure", "layer", "side")}
    )["value"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", default="mlp,cnn")
    parser.add_argument("--seeds", default="0-15")
    parser.add_argument("--pairs", type=int, default=12_000, help="per epoch")
    parser.add_argument("--out", type=Path, help="a folder to write agreement.csv to")
    chosen, splits, table = parser.parse_args(), data.digits(), []
    sizes = {
        "epochs": 10,
        "period": 2,
        "final_epochs": 2,
        "pairs_per_epoch": chosen.pairs,
        "test_pairs": 1_000,
    }
    for architecture in chosen.architectures.split(","):
        for regime in ("fixed", "varying"):
            settings = Settings(
                architecture=architecture, regime=regime, seeds=chosen.seeds, device="cpu", **sizes
            )
            first = None
            for way, trained in WAYS.items():
                weights = trained(settings, splits)
                scores = np.array(
                    [score(run, w, splits[1]) for run, w in zip(settings.runs(), weights)]
                )
                first = first or (weights, scores)
                apart = scores - first[1]
                row = {
                    "architecture": architecture,
                    "regime": regime,
                    "trained": way,
                    "n": len(scores),
                }
                row |= {"mean": scores.mean(), "sd": scores.std(ddof=1)}
                row["same bits"] = sum(
                    all(torch.equal(w[k], f[k]) for k in w) for w, f in zip(weights, first[0])
                )
                row |= {"mean difference": apart.mean(), "largest |difference|": abs(apart).max()}
                table.append(row)
    table = pd.DataFrame(table)
    print("\n" + table.to_markdown(index=False, floatfmt=".4g"))
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        table.to_csv(chosen.out / "agreement.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
