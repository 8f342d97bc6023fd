"""How far from the published history are first epochs trained in other ways?

`python benchmarks/reproducibility.py`: eight seeds of an arm of each architecture, in full epochs,
against the history of the study `paper`. The largest relative difference of any loss, epoch by
epoch; `same`: networks whose history is equal in every digit. About 20 minutes on 2 cores.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from modvar_lib import data, training
from modvar_lib.analysis import study
from modvar_lib.settings import Settings

LOSSES = ["train_mse", "test_mse", "sum_mse"]
WAYS = {  # threads, and the groups that are trained one after the other
    "8 together, 1 thread, as published": (1, ["0-7"]),
    "8 together, 2 threads: 2 lots of 4": (2, ["0-7"]),
    "alone, 1 thread": (1, ["0", "1"]),
}


def again(row: pd.Series, epochs: int, seeds: str) -> list[training.Trained]:
    """The first epochs of a published arm, a row of runs.csv. Goals depend on the length of a
    schedule through its final phase alone, so a shorter one without it begins the same."""
    values = row[list(Settings(seeds=row["seed"]).saved())].to_dict()
    epochs = min(epochs, values["epochs"] - values["final_epochs"])
    settings = Settings.of_saved({**values, "seed": seeds, "epochs": epochs, "final_epochs": 0})
    settings = settings.model_copy(update={"device": "cpu"})
    return training.train(settings, data.digits(settings.dataset))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", default="cnn,dose05,mlp,summed,towers")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--ways", type=int, default=len(WAYS), help="only the first so many")
    parser.add_argument("--out", type=Path, help="a folder to add reproducibility.csv to")
    chosen, table, history = parser.parse_args(), [], study.table("paper", "history")
    arms = study.select(
        study.table("paper", "runs"),
        seed=0,
        variant="default",
        regime=["fixed", "varying"],
        architecture=chosen.architectures.split(","),
    )
    for _, row in arms.groupby("architecture").tail(1).iterrows():
        part = study.select(
            history, variant="default", architecture=row["architecture"], regime=row["regime"]
        )
        for way, (threads, groups) in list(WAYS.items())[: chosen.ways]:
            torch.set_num_threads(threads)
            networks = [trained for seeds in groups for trained in again(row, chosen.epochs, seeds)]
            apart, same = [], 0
            for now in networks:
                was = (
                    study.select(part, seed=now.settings.seed)
                    .head(len(now.history))
                    .reset_index(drop=True)
                )
                same += was[now.history.columns].equals(now.history)
                apart.append((now.history[LOSSES] / was[LOSSES] - 1).abs().max(axis=1))
            network = {
                "torch": torch.__version__.split("+")[0],
                **row[["architecture", "regime"]],
                "trained": way,
            }
            largest = {f"epoch {i}": value for i, value in enumerate(np.max(apart, axis=0))}
            table.append({**network, "n": len(networks), "same": same, **largest})
    table = pd.DataFrame(table)
    print("\n" + table.to_markdown(index=False, floatfmt=".1e"))
    if chosen.out:
        file = chosen.out / "reproducibility.csv"
        before = [pd.read_csv(file)] if file.is_file() else []
        pd.concat([*before, table], ignore_index=True).to_csv(
            file, index=False, float_format="%.2g"
        )


if __name__ == "__main__":
    main()
