"""Does it pay? The whole network, fine-tuned to goals that it did not have: how soon is it good at
them?

`transfer_r2_<steps>`: held-out R² after so many steps of Adam (rate 0.001, 256 pairs each; 235
steps are an epoch), mean over 8 goals drawn as in `varying`, always the same and standardised.
`transfer_r2_difference_<steps>`: of the goal x - y, likewise. Every goal starts from the network as
it is; training digits, pairs of the network's seed that no training has used.

R² is 1 at best, 0 for the best constant, unbounded below. Of the whole network: layer `readout`. An
untrained network measured likewise is the value at chance. NaN, with the reason, for several
outputs. Source: Kashtan and Alon, PNAS 102 (2005), doi:10.1073/pnas.0503610102 (modular goals adapt
faster).
"""

from math import inf, nan

import torch

from modvar_lib import data, goals, models, training
from modvar_lib.metrics.subject import Property, Subject, tidy

EXTRA = ("trained", "untrained")
GOALS, EPOCHS, BATCH, RATE, TEST_PAIRS = 8, 2, 256, 1e-3, 2000
STEPS = (0, 8, 30, 118, 235, 470)
UNUSED = data.RESERVED  # epochs from here on are in no training, seeds from here on in no study
SEVERAL = "for goals of one output"
NAMES = ("transfer_r2", "transfer_r2_difference")
PROPERTIES = {
    f"{name}_{step}": Property(-inf, 1, ("permutation",)) for name in NAMES for step in STEPS
}


def rows(subject: Subject) -> list[dict]:
    names = [f"{name}_{step}" for name in NAMES for step in STEPS]
    several = subject.first["readout"].shape[-1] > 1
    values = [nan] * len(names) if several else fine_tuned(subject)
    return tidy("readout", dict(zip(names, values)), SEVERAL)


def fine_tuned(subject: Subject) -> list[float]:
    """R² after each of STEPS: the mean over the goals, and then that of x - y."""
    (digits, test_digits), seed = subject.splits, subject.seed
    drawn = [goals.drawn(0, UNUSED + i, goals.Schedule()) for i in range(GOALS)]
    tables = [goals.standardised(goals.linear(*pair)) for pair in (*drawn, (1, -1))]
    replicas = models.Replicas([subject.network] * len(tables))
    adam = models.OPTIMIZERS["adam"](replicas.leaves.values(), lr=RATE)

    def for_all(pairs) -> torch.Tensor:
        return torch.from_numpy(pairs).expand(len(tables), -1, -1)

    scored = for_all(data.evaluation_pairs(seed, TEST_PAIRS, len(test_digits))[:, :2])
    sought, values, step = training.targets_of(tables, test_digits, scored), [], 0
    for epoch in range(EPOCHS + 1):
        pairs = for_all(data.training_pairs(seed, UNUSED + epoch, 60_000, len(digits)))
        targets = training.targets_of(tables, digits, pairs)
        for batch, target in zip(pairs.split(BATCH, 1), targets.split(BATCH, 1)):
            if step in STEPS:
                answers = training.evaluate(replicas, test_digits.images, scored, None, BATCH)
                *ours, difference = training.mse_and_r2(answers, sought)[1]
                values.append((sum(ours) / GOALS, difference))
            if step == STEPS[-1]:
                return [value for column in zip(*values) for value in column]
            with torch.enable_grad():
                errors = replicas(data.halves(digits.images, batch)) - target
                loss = errors.square().mean((1, 2)).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
            step += 1
    return values
