"""Training as it is here against that of another commit, by turns.

`python benchmarks/against.py e478099`: both train the same in fresh processes, 8 networks of each
architecture together. Seconds per replica-epoch, the least of all rounds, since other work only
adds.
"""

import argparse
import subprocess
import sys
import tempfile

import pandas as pd

from modvar_lib.data import ROOT

ARCHITECTURES, ROUNDS = ("mlp", "cnn", "resnet", "vit", "mixer"), 3
ONE = """if True:
    import sys, time
    from modvar_lib import data, training
    from modvar_lib.settings import Settings
    sizes = dict(pairs_per_epoch=12_000, test_pairs=1_000, final_epochs=0, device="cpu")
    splits, seconds = data.digits(), []
    for epochs in (1, 3):  # the second minus the first: two epochs without the start
        settings = Settings(architecture=sys.argv[1], regime="varying", seeds=range(8), epochs=epochs, **sizes)
        started = time.perf_counter()
        training.train(settings, splits)
        seconds.append(time.perf_counter() - started)
    print((seconds[1] - seconds[0]) / 2 / 8 * 5)
"""


def main(commit: str) -> None:
    with tempfile.TemporaryDirectory() as other:
        subprocess.run(
            ["git", "-C", ROOT, "worktree", "add", "--detach", "--quiet", other, commit], check=True
        )
        try:
            rows = []
            for name in ROUNDS * ARCHITECTURES:
                ran = {
                    what: subprocess.run(
                        [sys.executable, "-c", ONE, name],
                        cwd=folder,
                        capture_output=True,
                        text=True,
                        check=True,
                    )
                    for what, folder in ((commit, other), ("here", ROOT))
                }
                rows.append(
                    {
                        "what": name,
                        **{what: float(done.stdout.split()[-1]) for what, done in ran.items()},
                    }
                )
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", other], check=True)
    table = pd.DataFrame(rows).groupby("what", sort=False).min()
    print(table.assign(ratio=table["here"] / table[commit]).to_markdown(floatfmt=".3g"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="what to compare with")
    main(parser.parse_args().commit)
