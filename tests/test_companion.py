"""The whole graph of the paper, at toy size: in a file of its own, so that it can run beside the others."""

import pandas as pd
from test_study import snakemake

from modvar_lib import runs

COMPANION = {
    "study": "companion",
    "architecture": "mlp",
    "seeds": "0-1",
    "regime": "fixed",
    "notebooks": [
        "04_analysis",
        "05_why_the_score_moves",
        "06_ruler",
        "07_controls",
        "08_multiverse",
        "09_explore",
    ],
    "arms": [
        {"regime": ["fixed", "varying", "tables"]},
        {"architecture": ["towers", "summed", "dose20"]},
        {"variant": "period2", "regime": "varying", "period": 2},
    ],
}


def test_the_whole_companion_from_nothing(results, tmp_path):
    """Calibration, controls, variants and every notebook, at toy size, as make paper does at full size."""
    status, said = snakemake(tmp_path, **COMPANION)
    assert status == 0, said
    root = results / "companion"
    assert len(runs.paths("companion")) == 14
    for name in ("score_parts", "placed", "controls", "decision", "periods", "multiverse"):
        assert len(pd.read_csv(root / f"{name}.csv")) > 0
    figures = {path.stem for path in (root / "figures").glob("*.png")}
    assert {"score_parts", "dose-hidden2", "ruler", "controls", "multiverse"} <= figures
    pages = {path.stem for path in (root / "report").iterdir()}
    assert set(COMPANION["notebooks"]) < pages
    copies = pd.read_csv(root / "copies.csv")
    assert set(copies["copy"]) == {"untrained", "shuffled", "rotated", "shifted", "seen"}
