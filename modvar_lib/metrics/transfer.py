"""Does it pay? The whole network, fine-tuned to goals that it did not have: how soon is it good at
them?

`transfer_r2_<steps>`: held-out R² after so many steps of Adam (rate 0.001, 256 pairs each; 235
steps are an epoch), mean over 8 goals a·x + b·y drawn as in `varying`, always the same, each
rescaled to the mean and the standard deviation of x + y. `transfer_r2_difference_<steps>`: of the
goal x - y, likewise. Every goal starts from the network as it is; training digits, pairs of the
network's seed that no training has used.

R² is 1 at best, 0 for the best constant, unbounded below. Of the whole network: layer `readout`. An
untrained network measured likewise is the value at chance. NaN, with the reason, for several
outputs. Source: Kashtan and Alon, PNAS 102 (2005), doi:10.1073/pnas.0503610102 (modular goals adapt
faster).
"""

import torch
from torch import nn

from modvar_lib import data, goals, models, training
from modvar_lib.metrics.subject import INF, Property, tidy

GOALS, EPOCHS, BATCH, RATE = 8, 2, 256, 1e-3
STEPS = (0, 8, 30, 118, 235, 470)
UNUSED = data.RESERVED  # epochs from here on are in no training, seeds from here on in no study
SEVERAL = "for goals of one output"
NAMES = ("transfer_r2", "transfer_r2_difference")
PROPERTIES = {
    f"{name}_{step}": Property(-INF, 1, ("permutation",)) for name in NAMES for step in STEPS
}


def rows(
    network: nn.Module, splits: tuple[data.Digits, data.Digits], seed: int, test_pairs: int = 2000
) -> list[dict]:
    """A row of each measure."""
    names = [f"{name}_{step}" for name in NAMES for step in STEPS]
    values = [float("nan")] * len(names)
    if network(torch.zeros(1, 2, 28, 28)).shape[1] == 1:
        values = fine_tuned(network, splits, seed, test_pairs)
    return tidy("readout", dict(zip(names, values)), SEVERAL)


def fine_tuned(
    network: nn.Module, splits: tuple[data.Digits, data.Digits], seed: int, test_pairs: int
) -> list[float]:
    """R² after each of STEPS: the mean over the goals, and then that of x - y."""
    training_digits, test_digits = splits
    tables = [
        goals.standardised(goals.linear(*goals.drawn(0, UNUSED + i, goals.Schedule())))
        for i in range(GOALS)
    ]
    tables.append(goals.standardised(goals.linear(1, -1)))
    replicas = models.Replicas([network] * len(tables))
    adam = models.OPTIMIZERS["adam"](replicas.leaves.values(), lr=RATE)
    scored = torch.from_numpy(
        data.evaluation_pairs(seed, test_pairs, len(test_digits))[:, :2]
    ).expand(len(tables), -1, -1)
    sought, values, step = training.targets_of(tables, test_digits, scored), [], 0
    for epoch in range(EPOCHS + 1):
        pairs = torch.from_numpy(
            data.training_pairs(seed, UNUSED + epoch, 60_000, len(training_digits))
        ).expand(len(tables), -1, -1)
        targets = training.targets_of(tables, training_digits, pairs)
        for batch, target in zip(pairs.split(BATCH, 1), targets.split(BATCH, 1)):
            if step in STEPS:
                answers = training.evaluate(replicas, test_digits.images, scored, None, BATCH)
                *drawn, difference = training.mse_and_r2(answers, sought)[1]
                values.append((sum(drawn) / GOALS, difference))
            if step == STEPS[-1]:
                return [value for column in zip(*values) for value in column]
            adam.zero_grad()
            with torch.enable_grad():
                (replicas(data.halves(training_digits.images, batch)) - target).square().mean(
                    (1, 2)
                ).sum().backward()
            adam.step()
            step += 1
    return values
