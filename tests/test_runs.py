import json

import pandas as pd
import pytest
import torch

from modvar_lib import metrics, runs, training
from modvar_lib.errors import InputError


@pytest.fixture
def saved(results, toy, splits):
    """A study of two networks on disk."""
    settings = toy(regime="varying", seeds="0-1")
    trained = training.train(settings, splits)
    return settings, trained, [runs.save("toy", t) for t in trained]


def test_what_is_saved_comes_back(saved, results):
    settings, trained, paths = saved
    assert paths[1] == results / "toy" / "runs" / "MNIST-mlp-varying" / "seed-001"
    assert sorted(p.name for p in paths[0].iterdir()) == sorted(runs.FILES)
    run = runs.load(paths[1])
    assert run.settings == settings.of_run(1)
    pd.testing.assert_frame_equal(
        run.history, trained[1].history, check_exact=True, check_dtype=False
    )
    assert all(torch.equal(value, trained[1].weights[name]) for name, value in run.weights.items())
    assert run.provenance["threads"] == torch.get_num_threads() and len(run.provenance["data"]) == 4
    assert {"commit", "dirty"} == set(run.provenance["git"] or {"commit", "dirty"})


def without_checksums(path):
    """As runs were before there were any."""
    origin = json.loads((path / "provenance.json").read_text())
    del origin["files"]
    (path / "provenance.json").write_text(json.dumps(origin))


def test_a_run_from_before_a_setting_existed_has_its_default(saved):
    _, _, paths = saved
    settings = json.loads((paths[0] / "settings.json").read_text())
    old = {k: v for k, v in settings.items() if k not in ("variant", "optimizer")}
    (paths[0] / "settings.json").write_text(json.dumps(old))
    without_checksums(paths[0])
    assert runs.load(paths[0]).settings == settings


def test_a_variant_has_a_folder_of_its_own(results, toy):
    path = runs.run_folder("toy", toy(regime="varying", variant="period1", period=1).of_run(3))
    assert path == results / "toy" / "runs" / "MNIST-mlp-varying-period1" / "seed-003"


def test_finished_seeds_are_not_trained_again(saved):
    settings, _, paths = saved
    assert runs.missing(settings) == ()
    (paths[0] / "history.csv").unlink()
    assert runs.missing(settings) == (0,)


def test_other_settings_never_overwrite(saved, toy):
    with pytest.raises(
        InputError,
        match=r"^epochs: got 5, but .*seed-000 was trained with 3; allowed: the same value, another study",
    ):
        runs.missing(toy(regime="varying", epochs=5))


def test_a_failed_write_leaves_nothing(results, toy, splits, monkeypatch):
    trained = training.train(toy(), splits)[0]
    monkeypatch.setattr(runs, "provenance", lambda trained: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runs.save("toy", trained)
    assert [p for p in results.rglob("*") if p.is_file() or "seed" in p.name] == []


@pytest.mark.parametrize("name", runs.FILES)
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_run_is_one_line_naming_the_file(saved, name, damage):
    path = saved[2][0] / name
    content = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes(
        content[: len(content) // 2] if damage == "cut" else b"[]"
    )
    with pytest.raises(InputError) as caught:
        runs.load(path.parent)
    line = str(caught.value)
    assert line.startswith(f"run: {path} is ") and "train again" in line and "\n" not in line


def test_weights_of_another_architecture_are_damage(saved, toy, splits):
    other = training.train(toy(architecture="cnn", epochs=1, final_epochs=1), splits)[0]
    cnn = runs.save("other", other)
    (saved[2][0] / "weights.safetensors").write_bytes((cnn / "weights.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"weights.safetensors is damaged"):
        runs.load(saved[2][0])


def test_a_run_in_the_wrong_place_is_damage(saved):
    saved[2][1].rename(saved[2][1].with_name("seed-002"))
    with pytest.raises(
        InputError, match=r"settings.json is damaged \(it belongs in MNIST-mlp-varying/seed-001\)"
    ):
        runs.load(saved[2][1].with_name("seed-002"))


def test_settings_from_elsewhere_are_checked(saved):
    path = saved[2][0] / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"regime": "../../etc"}))
    without_checksums(path.parent)
    with pytest.raises(
        InputError, match=r"settings.json is damaged \(regime: got.*set MODVAR_OWN to its file"
    ):
        runs.load(saved[2][0])


def test_an_empty_study_is_one_line(results):
    for ask in (lambda: runs.paths("nothing"), lambda: runs.table("nothing", "measures.csv")):
        with pytest.raises(InputError, match=r"^study: 'nothing' has no "):
            ask()
    (results / "hollow").mkdir(parents=True)
    (results / "hollow" / "measures.csv").write_text(",".join(metrics.COLUMNS) + "\n")
    with pytest.raises(InputError, match=r"measures.csv has no rows"):
        runs.table("hollow", "measures.csv")


def test_tables_are_tidy(saved):
    about, history = runs.tables("toy")
    assert about[runs.KEYS].to_numpy().tolist() == [
        ["MNIST", "mlp", "varying", "default", 0],
        ["MNIST", "mlp", "varying", "default", 1],
    ]
    assert len(history) == 6 and set(runs.KEYS) < set(history)
    assert {"epochs", "versions.torch", "cpu", "threads", "group_seconds"} <= set(about)
