"""What is published passes; one number, pixel, byte or epoch changed is named."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread, imsave

from modvar_lib import data, files, verify

STUDY = "paper"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A project's published part, to spoil."""
    monkeypatch.setenv("MODVAR_DATA", str(data.data_folder()))
    for folder in (verify.tables_of(STUDY), verify.figures_of(STUDY)):
        shutil.copytree(folder, tmp_path / folder.relative_to(data.ROOT))
    monkeypatch.setattr(data, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def verified(copy, derived, monkeypatch, capsys):
    """Runs all of it, but for what `derived` has already executed, and one epoch of the smallest networks: (status, lines)."""
    monkeypatch.setattr(verify, "workers", lambda: ThreadPoolExecutor(1))
    monkeypatch.setattr(verify, "training", partial(verify.training, architectures=["summed"]))

    def derive(study, results, pool):
        shutil.copytree(derived / study, results / study)
        return "done before"

    monkeypatch.setattr(verify, "derive", derive)
    monkeypatch.setattr(sys, "argv", ["verify", "--epochs", "1"])

    def run():
        with pytest.raises(SystemExit) as ended:
            verify.main()
        return ended.value.code, capsys.readouterr().out.splitlines()

    return run


def test_what_is_published_holds(verified):
    status, lines = verified()
    assert status == 0 and lines[-1].startswith("everything holds"), lines
    names = ["data", "files", "notebooks", "tables", "figures", "texts", "training"]
    assert [line.split()[:2] for line in lines[1:-1]] == [["same", name] for name in names]


def test_a_number_and_an_epoch_changed_are_named(verified, copy):
    """Both in tables; the checksums are written anew, as someone would who means it."""
    folder = verify.tables_of(STUDY)
    table = pd.read_csv(folder / "difference.csv", dtype=str, keep_default_na=False)
    table.loc[2, "low"] = table.loc[2, "low"].replace("0.", "0.1")
    table.to_csv(folder / "difference.csv", index=False)
    history = pd.read_csv(folder / "history.csv", dtype=str, keep_default_na=False)
    is_it = (history["architecture"] == "summed") & (history["regime"] == "varying")
    row = history[is_it & (history["seed"] == "0") & (history["epoch"] == "0")].index[0]
    history.loc[row, "test_mse"] = str(1.001 * float(history.loc[row, "test_mse"]))
    history.to_csv(folder / "history.csv", index=False)
    files.write_checksums(folder, files.digests(folder))
    status, lines = verified()
    said = [line for line in lines if line.startswith("DIFFERS")]
    assert status == 1 and len(said) == 2
    assert "difference.csv: row 3, low: " in said[0]
    assert "history.csv: MNIST summed varying default 0, epoch 0, test_mse: " in said[1]


def spoil_a_byte():
    path = verify.figures_of(STUDY) / files.SUMS
    first, rest = path.read_text()[0], path.read_text()[1:]
    path.write_text(("0" if first != "0" else "1") + rest)
    return "figures/paper/approximation.png is changed", verify.published, ()


def spoil_a_missing_file():
    (verify.tables_of(STUDY) / "dose.csv").unlink()
    return "paper/dose.csv is missing", verify.published, ()


def spoil_a_file_besides():
    (verify.tables_of(STUDY) / "more.csv").touch()
    return "paper/more.csv is not in it", verify.published, ()


def spoil_pixels():
    path = verify.figures_of(STUDY) / "ruler.png"
    picture = np.array(imread(path))
    picture[100:108, 200:208, :3] = 1 - picture[100:108, 200:208, :3]
    imsave(path, picture)
    return "ruler.png: 64 of ", verify.figures, ("derived",)


def spoil_a_drawing():
    path = verify.figures_of(STUDY) / "ruler.svg"
    path.write_text(path.read_text().replace("share of the way", "share of a way"))
    return "ruler.svg: not the bytes", verify.figures, ("derived",)


def spoil_a_figure_more():
    shutil.copy(verify.figures_of(STUDY) / "ruler.png", verify.figures_of(STUDY) / "more.png")
    return "more.png is published, but nothing makes it", verify.figures, ("derived",)


def spoil_a_text():
    path = verify.tables_of(STUDY) / "notebooks" / "07_controls.ipynb"
    found = nbformat.read(path, as_version=4)
    shown = [o for cell in found.cells for o in cell.get("outputs", []) if "data" in o]
    shown[0].data["text/plain"] = shown[0].data["text/plain"].replace("16", "17", 1)
    nbformat.write(found, path)
    return "07_controls.ipynb: code cell ", verify.texts, ("derived",)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_a_byte,
        spoil_a_missing_file,
        spoil_a_file_besides,
        spoil_pixels,
        spoil_a_drawing,
        spoil_a_figure_more,
        spoil_a_text,
    ],
)
def test_what_is_changed_is_named(spoil, copy, derived, capsys):
    message, check, more = spoil()
    arguments = (STUDY, derived) if more else (STUDY,)
    assert not verify.holds("it", lambda: check(*arguments))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("DIFFERS it") and message in line


def test_rounding_of_another_processor_is_said_and_more_is_not_let_pass(copy, derived):
    path = verify.tables_of(STUDY) / "difference.csv"
    table = pd.read_csv(path)
    for factor, fine in ((1 + 4e-16, True), (1 + 1e-11, False)):
        table.assign(low=factor * table["low"]).to_csv(path, index=False)
        if fine:
            assert verify.tables(STUDY, derived).endswith("but for rounding in difference.csv")
        else:
            with pytest.raises(verify.Differs, match=r"difference\.csv: row 1, low"):
                verify.tables(STUDY, derived)


def test_other_digits_are_named(copy, tmp_path, monkeypatch):
    raw = tmp_path / "data" / "MNIST" / "raw"
    shutil.copytree(data.data_folder() / "MNIST" / "raw", raw)
    monkeypatch.setenv("MODVAR_DATA", str(tmp_path / "data"))
    assert verify.digits(STUDY) == "4 files of MNIST"
    sums = raw / files.SUMS
    sums.write_text(sums.read_text().replace("8d422c", "8d422d"))
    with pytest.raises(
        verify.Differs, match=r"t10k-images-idx3-ubyte.gz is changed, by SHA256SUMS"
    ):
        verify.digits(STUDY)


def test_a_shorter_schedule_begins_the_same():
    """What `verify.again` rests on, for every published arm."""
    from modvar_lib import goals
    from modvar_lib.settings import Settings

    about = pd.read_csv(verify.tables_of(STUDY) / "runs.csv")
    names = ["epochs", "period", "final_epochs", "max_coefficient"]
    for regime, *values in about[["regime", *names]].drop_duplicates().itertuples(index=False):
        long = Settings(regime=regime, **dict(zip(names, values)))
        short = long.model_copy(update={"epochs": 3, "final_epochs": 0})
        for epoch in range(3):
            for seed in (0, 7):
                goal = goals.REGIMES[regime]
                assert np.array_equal(goal(epoch, seed, long), goal(epoch, seed, short))
            assert goals.restart(epoch, regime, long) == goals.restart(epoch, regime, short)


def test_what_is_printed_in_two_pieces_is_the_same(tmp_path):
    """A kernel sends what it prints when 0.2 s have passed: where one piece ends depends on how busy the machine is."""
    pieces = [["a\nb\n"], ["a\n", "b\n"]]
    for name, texts in zip("12", pieces):
        outputs = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in texts]
        cell = nbformat.v4.new_code_cell("f()", outputs=outputs, metadata={"tags": []})
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    assert verify.shown(tmp_path / "1.ipynb") == verify.shown(tmp_path / "2.ipynb") == [["a\nb\n"]]
