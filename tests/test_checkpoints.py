"""A training that is stopped goes on, and ends in the same bits."""

import subprocess
import sys

import pytest
import torch

from modvar_lib import checkpoints, data, runs, training
from modvar_lib.errors import InputError


@pytest.fixture(autouse=True)
def often(monkeypatch, results):
    """A checkpoint after every epoch, on two cores."""
    monkeypatch.setenv("MODVAR_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def same(one, other):
    return (
        one.settings == other.settings
        and one.history.equals(other.history)
        and all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    )


def stop(settings, monkeypatch, after: int, lot: int = 0):
    """Train until the lot of this seed has written its checkpoint after so many epochs."""
    offer = checkpoints.Checkpoints.offer

    def offered(self, seeds, leaves, optimizer, histories, last):
        offer(self, seeds, leaves, optimizer, histories, last)
        if lot in seeds and len(histories[0]) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "offer", offered)
        with pytest.raises(KeyboardInterrupt):
            runs.complete(settings)


def kept(study):
    return sorted((runs.study_folder(study) / "checkpoints").rglob("*.safetensors"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "learning_rate": 1e-5, "regime": "restarts"},
        {"regime": "both"},
        {"regime": "restarts", "period": 2},
        {"architecture": "cnn"},
        {"architecture": "vit", "seeds": "0-1"},
    ],
    ids=str,
)
def test_a_stopped_training_ends_in_the_same_bits(toy, monkeypatch, changes):
    settings = toy(**{"regime": "varying", "seeds": "0-4", "epochs": 4, **changes})
    whole = runs.complete(settings.model_copy(update={"study": "whole"}))
    for after in (1, 3):  # stopped twice
        stop(settings, monkeypatch, after)
    assert kept("toy") and not (runs.study_folder("toy") / "runs").exists()
    first_epochs = []
    train_lot = training.train_lot
    monkeypatch.setattr(
        training,
        "train_lot",
        lambda *args: (
            first_epochs.append(len(args[-1].kept.get(args[1], [{}])[0])) or train_lot(*args)
        ),
    )
    assert all(map(same, runs.complete(settings), whole))
    assert kept("toy") == [] == kept("whole") and first_epochs


def test_frames_survive_a_stop_and_change_nothing(toy, monkeypatch):
    settings = toy(seeds="0-2", epochs=5)
    shorter = runs.complete(settings.model_copy(update={"study": "shorter", "epochs": 4}))
    plain = runs.complete(settings.model_copy(update={"study": "plain"}))
    settings = settings.model_copy(update={"frames": 2})
    whole = runs.complete(settings.model_copy(update={"study": "whole"}))
    for after in (1, 3):
        stop(settings, monkeypatch, after)
    for run, other, third, fourth in zip(runs.complete(settings), whole, plain, shorter):
        assert same(run, other) and same(run, third) and third.frames == {}
        assert list(run.frames) == list(other.frames) == [2, 4]
        for done, frame in run.frames.items():
            assert all(torch.equal(frame[name], other.frames[done][name]) for name in frame)
        assert all(
            torch.equal(value.half(), run.frames[4][k]) for k, value in fourth.weights.items()
        )
        first, last = run.network(0).state_dict(), run.network(5).state_dict()
        assert all(torch.equal(v, last[name]) for name, v in run.weights.items())
        assert not torch.equal(first["readout.weight"], last["readout.weight"])
        with pytest.raises(InputError, match=r"epochs: got 3; kept of seed-00\d: \[0, 2, 4, 5\]"):
            run.network(3)
    assert kept("toy") == kept("whole") == []


@pytest.mark.parametrize("what", ["flipped", "cut", "more", "swapped"])
def test_damaged_frames_are_one_line(toy, what):
    one, other = runs.complete(toy(seeds="0-1", epochs=3, frames=1))
    path = one.path / "frames.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    changed = {"flipped": content, "cut": content[:1000], "more": bytes(10**8)}
    path.write_bytes(changed.get(what) or (other.path / path.name).read_bytes())
    assert runs.load(one.path).network() is not None  # the rest of the run is whole
    with pytest.raises(InputError, match=r"run: .*frames.safetensors is damaged \(.*\); delete it"):
        list(runs.load(one.path).frames)


def test_a_stop_between_two_saves_trains_nothing_again(toy, monkeypatch):
    settings = toy(seeds="0-4", regime="varying")
    whole, save = runs.complete(settings.model_copy(update={"study": "whole"})), runs.save

    def once(study, trained, *frames):
        if trained.settings["seed"] == 2:
            raise KeyboardInterrupt
        return save(study, trained, *frames)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "save", once)
        with pytest.raises(KeyboardInterrupt):
            runs.complete(settings)
    assert runs.missing(settings) == (2, 3, 4)
    monkeypatch.setattr(data, "halves", lambda *_: 1 / 0)  # no batch is needed any more
    monkeypatch.setattr(training, "evaluate", lambda *_: 1 / 0)
    assert all(map(same, runs.complete(settings), whole))


def test_a_stop_after_the_last_save_leaves_nothing_the_next_time(toy, monkeypatch):
    settings = toy(seeds="0-1")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "clear", lambda self: _raise(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            runs.complete(settings)
    assert kept("toy") and runs.missing(settings) == ()
    runs.complete(settings)
    assert kept("toy") == []


@pytest.mark.parametrize("what", ["cut", "flipped", "settings", "code"])
def test_a_checkpoint_that_does_not_fit_is_not_used(toy, monkeypatch, capsys, what):
    settings = toy(seeds="0-1", regime="varying")
    stop(settings, monkeypatch, after=2)
    for path in kept("toy"):
        content = bytearray(path.read_bytes())
        content[-5] ^= what == "flipped"
        path.write_bytes(content[: len(content) // 2] if what == "cut" else content)
    if what == "settings":
        settings = settings.model_copy(update={"learning_rate": 0.01})
    if what == "code":
        monkeypatch.setattr(runs, "code", lambda settings: "another")
    again = runs.complete(settings)
    said = "is damaged or from another version; it is not used"
    assert said in capsys.readouterr().out and kept("toy") == []
    other = settings.model_copy(update={"study": "other"})
    assert all(map(same, again, runs.complete(other)))


def test_groups_of_one_arm_keep_to_their_own(toy, monkeypatch):
    low, high = toy(seeds="0-1"), toy(seeds="2-3")
    stop(low, monkeypatch, after=1)
    before = kept("toy")
    runs.complete(high)
    assert kept("toy") == before
    runs.complete(low)
    assert kept("toy") == []


def test_what_a_killed_write_left_goes(toy):
    settings = toy()
    stale = runs.run_folder("toy", settings.of_run(0)).with_name(".seed-000-abc")
    stale.mkdir(parents=True)
    runs.complete(settings)
    assert not stale.exists()


def test_no_memory_for_a_lot_trains_its_halves(toy, splits, monkeypatch, capsys):
    settings, tried = toy(seeds="0-3", regime="varying"), []
    train_lot, whole = training.train_lot, training.train(settings, splits)

    def scarce(settings, seeds, *others):
        tried.append(seeds)
        if len(seeds) > 1:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"
            )
        return train_lot(settings, seeds, *others)

    monkeypatch.setattr(training, "train_lot", scarce)
    for part, one in zip(training.train(settings, splits), whole, strict=True):
        assert part.settings == one.settings and len(part.history) == len(one.history)
    assert sorted(tried) == [(0,), (0, 1), (1,), (2,), (2, 3), (3,)]
    assert "no memory for 2 seeds at once, so half of them" in capsys.readouterr().out
    monkeypatch.setattr(training, "train_lot", lambda *_: [][0] if 0 else _raise(MemoryError()))
    with pytest.raises(
        InputError, match=r"^batch_size: got 64, with which one mlp does not fit in"
    ):
        training.train(settings, splits)


def _raise(error):
    raise error


def test_a_control_groups_limit_counts(tmp_path):
    free = training.free_memory("cpu", tmp_path)
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("2000000000\n")
    assert training.free_memory("cpu", tmp_path) == int(training.SHARE * 1e9) < free
    (tmp_path / "memory.max").write_text("max\n")
    assert training.free_memory("cpu", tmp_path) > 2e9


ONE = """
import sys
from modvar_lib import runs, training
from modvar_lib.settings import Settings

train = training.train

def when_told(*arguments):
    print("in", flush=True)
    sys.stdin.readline()
    return train(*arguments)

if sys.argv[2:]:
    training.train = when_told
runs.complete(Settings(study="two", seeds=sys.argv[1], epochs=2, final_epochs=1, pairs_per_epoch=512, device="cpu"))
"""


def process(*arguments):
    """Another process that completes seeds; with a second argument, not before it is told on its stdin."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-u", "-c", ONE, *arguments], **pipes)


def test_two_at_once_train_a_network_once(results):
    """The second waits for the seeds that both want, then finds them done; what it alone wants it trains."""
    first = process("0-1", "when told")
    assert first.stdout.readline() == "in\n"
    second = process("0-2")
    assert "another process trains some of these seeds; waiting for it" in second.stdout.readline()
    assert len(first.communicate("go\n")[0].splitlines()) >= 1
    said, _ = second.communicate()
    assert first.returncode == second.returncode == 0 and len(runs.paths("two")) == 3
    assert "1 seed: epoch 2/2" in said and "3 seeds" not in said


def test_a_waiting_process_takes_over_when_the_other_is_killed(results):
    first = process("0", "when told")
    assert first.stdout.readline() == "in\n"
    second = process("0")
    assert "waiting for it" in second.stdout.readline()
    first.kill()
    first.communicate()
    second.communicate()
    assert second.returncode == 0 and len(runs.paths("two")) == 1
