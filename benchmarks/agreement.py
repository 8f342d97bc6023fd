"""Do scores depend on how networks are trained together, or on the device? python benchmarks/agreement.py [--out FOLDER]

The same seeds are trained in several ways, on a shorter schedule of the same kind (10 epochs of 12,000 pairs, a new goal every 2,
x + y in the last 2), and scored with the primary measure. Sums in another order round differently, and training amplifies
that: single networks may differ, their distribution must not. `same bits` counts networks whose weights are the same to the bit.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from modvar_lib import data, metrics, models, progress, runs, training
from modvar_lib.settings import Settings


def together(settings, splits):
    return [trained.weights for trained in training.train(settings, splits)]


def one_at_a_time(settings, splits):
    alone = [settings.model_copy(update={"seeds": (seed,)}) for seed in settings.seeds]
    return [weights for one in alone for weights in together(one, splits)]


def threaded(settings, splits):
    """One lot, every operation on all cores."""
    with progress.Shown(settings.epochs, 1, "one lot") as shown:
        return [w for _, w in training.train_lot(settings, settings.seeds, splits, shown)]


def on_cuda(settings, splits):
    return together(settings.model_copy(update={"device": "cuda"}), splits)


WAYS = {
    "lots, one a core": together,
    "one at a time": one_at_a_time,
    "one lot on all cores": threaded,
}
if torch.cuda.is_available():
    WAYS["cuda"] = on_cuda


def score(settings, seed, weights, digits) -> float:
    """The primary measure of one network."""
    network, primary = models.initial(settings.architecture, seed), runs.primary()
    network.load_state_dict(weights)
    draws = torch.from_numpy(data.evaluation_pairs(seed, 2_000, len(digits)))
    with torch.no_grad():
        subject = metrics.Subject(network, digits, draws, seed)
        rows = metrics.METRICS[primary["measure"]].rows(subject)
    wanted = {name: primary[name] for name in ("measure", "layer", "side")}
    return next(row["value"] for row in rows if wanted.items() <= row.items())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--architectures", default="mlp,cnn")
    arguments.add_argument("--seeds", default="0-15")
    arguments.add_argument("--out", type=Path, help="a folder to write agreement.csv to")
    chosen, splits, table = arguments.parse_args(), data.digits(), []
    for architecture in chosen.architectures.split(","):
        for regime in ("fixed", "varying"):
            settings = Settings(
                architecture=architecture,
                regime=regime,
                seeds=chosen.seeds,
                epochs=10,
                period=2,
                final_epochs=2,
                pairs_per_epoch=12_000,
                test_pairs=1_000,
                device="cpu",
            )
            reference = None
            for way, trained in WAYS.items():
                weights = trained(settings, splits)
                pairs = zip(settings.seeds, weights)
                scores = np.array([score(settings, seed, w, splits[1]) for seed, w in pairs])
                reference = reference or (weights, scores)
                same = [
                    all(torch.equal(w[k], r[k]) for k in w) for w, r in zip(weights, reference[0])
                ]
                apart = scores - reference[1]
                table.append(
                    {
                        "architecture": architecture,
                        "regime": regime,
                        "trained": way,
                        "n": len(scores),
                        "mean": scores.mean(),
                        "sd": scores.std(ddof=1),
                        "same bits": sum(same),
                        "mean difference": apart.mean(),
                        "largest |difference|": abs(apart).max(),
                    }
                )
    found = pd.DataFrame(table)
    print("\n" + found.to_markdown(index=False, floatfmt=".4f"))
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        found.to_csv(chosen.out / "agreement.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
