"""How far from the published history are first epochs trained in other ways? python benchmarks/reproducibility.py [--out FOLDER]

Eight seeds of an arm of each architecture, in full epochs, against results/published/paper/history.csv. The largest relative
difference of any loss, epoch by epoch; `same`: networks whose history is equal in every digit. About 20 minutes on 2 cores.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from modvar_lib import verify

SEEDS = list(range(8))


def on(threads: int, groups: list[list[int]], row: dict, epochs: int) -> list:
    """Each group after the other, with so many threads to share among its lots."""
    torch.set_num_threads(threads)
    return [trained for seeds in groups for trained in verify.again(row, epochs, seeds)]


WAYS = {
    "8 together, 1 thread, as published": lambda *a: on(1, [SEEDS], *a),
    "8 together, 2 threads: 2 lots of 4": lambda *a: on(2, [SEEDS], *a),
    "alone, 1 thread": lambda *a: on(1, [[seed] for seed in SEEDS[:2]], *a),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--architectures", default="cnn,dose05,mlp,summed,towers")
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--ways", type=int, default=len(WAYS), help="only the first so many")
    arguments.add_argument("--out", type=Path, help="a folder to add reproducibility.csv to")
    chosen, table = arguments.parse_args(), []
    about, history = (
        pd.read_csv(verify.tables_of("paper") / f"{n}.csv") for n in ("runs", "history")
    )
    arms = about[(about["seed"] == 0) & (about["variant"] == "default")]
    arms = arms[arms["architecture"].isin(chosen.architectures.split(","))]
    arms = arms[arms["regime"].isin(["fixed", "varying"])].groupby("architecture").tail(1)
    for row in arms.to_dict("records"):
        for way, train in list(WAYS.items())[: chosen.ways]:
            found = train(row, chosen.epochs)
            pairs = [(verify.published_history(history, one), one.history) for one in found]
            apart = np.max([verify.difference(*pair).to_numpy().max(1) for pair in pairs], axis=0)
            table.append(
                {
                    "torch": torch.__version__.split("+")[0],
                    "architecture": row["architecture"],
                    "regime": row["regime"],
                    "trained": way,
                    "n": len(found),
                    "same": sum(was[now.columns].equals(now) for was, now in pairs),
                    **{f"epoch {i}": value for i, value in enumerate(apart)},
                }
            )
            print(*table[-1].values(), flush=True)
    found = pd.DataFrame(table)
    if chosen.out:
        kept = chosen.out / "reproducibility.csv"
        before = [pd.read_csv(kept)] if kept.is_file() else []
        found = pd.concat([*before, found], ignore_index=True)
        found.to_csv(kept, index=False, float_format="%.2g")
    print("\n" + found.to_markdown(index=False, floatfmt=".1e"))


if __name__ == "__main__":
    main()
