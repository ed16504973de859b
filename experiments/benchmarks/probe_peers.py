"""The contenders of `probe.py` beside jaxlin, and how all of them are measured.

All minimize the mean softmax loss + strength * |W|^2 with a free bias on raw features in float32.
"""

import sys
import time
import warnings

import numpy as np
from full_batch_peers import objective_of

from jaxlin.core import Batch

STEP_SIZES, EPOCHS, BATCH = (1e-3, 3e-3, 1e-2), 10, 1024
TITLES = {
    "jaxlin": "jaxlin",
    "lbfgs": "scikit-learn lbfgs",
    "newton-cg": "scikit-learn newton-cg",
    "torch": "PyTorch AdamW loop",
}


class Clock:
    """Seconds on the wall and of the processor since it was made."""

    def __init__(self):
        self.wall, self.busy = time.perf_counter(), time.process_time()

    def read(self) -> dict:
        return {
            "seconds": time.perf_counter() - self.wall,
            "processor_seconds": time.process_time() - self.busy,
        }


def accuracy(weights, bias, data: Batch) -> float:
    scores = data.inputs @ np.asarray(weights, np.float32).T + np.asarray(bias, np.float32)
    return float((scores.argmax(1) == data.labels).mean())


def scikit_fit(train, strength: float, solver: str, tol: float):
    """Weights, bias and the iterations of one fit."""
    from sklearn.linear_model import LogisticRegression

    C = 1 / (2 * len(train.labels) * strength)
    model = LogisticRegression(C=C, solver=solver, max_iter=1000, tol=tol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge is what is measured
        model.fit(train.inputs, train.labels)
    return model.coef_, model.intercept_, int(np.max(model.n_iter_))


def scikit_peer(name, train, validation, bounds, seconds: float, tol: float) -> list[dict]:
    """One fit for each strength, in the order of the bounds, until the time is spent."""
    rows, clock = [], Clock()
    for bound in bounds:
        if clock.read()["seconds"] > seconds:
            say(f"{TITLES[name]}: the time of {seconds:.0f} s is spent, {len(rows)} fits measured")
            break
        own = Clock()
        weights, bias, iterations = scikit_fit(train, bound["strength"], name, tol)
        spent = own.read()
        rows.append(measured(weights, bias, train, validation, bound) | spent
                    | {"iterations": iterations})  # fmt: skip
        say(f"{TITLES[name]} at {bound['strength']:.1e}: {spent['seconds']:.1f} s, "
            f"{iterations} iterations, {rows[-1]['excess']:.1e} above the bound")  # fmt: skip
    return rows


def torch_peer(train, validation, bounds, classes: int, seed: int) -> list[dict]:
    """All strengths and step sizes in one training; of each strength the best on validation."""
    import torch

    clock, generator = Clock(), torch.Generator().manual_seed(seed)
    inputs, labels = torch.from_numpy(train.inputs), torch.from_numpy(train.labels).long()
    steps = EPOCHS * -(-len(labels) // BATCH)
    heads, groups = [], []
    for bound in bounds:
        for size in STEP_SIZES:
            layer = torch.nn.Linear(inputs.shape[1], classes)
            torch.nn.init.normal_(layer.weight, 0.0, 0.01, generator=generator)
            torch.nn.init.zeros_(layer.bias)
            heads.append((bound, layer))
            groups.append({"params": list(layer.parameters()), "lr": size})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(labels), generator=generator)
        for start in range(0, len(labels), BATCH):
            rows = order[start : start + BATCH]
            batch, own = inputs[rows], labels[rows]
            losses = [
                torch.nn.functional.cross_entropy(layer(batch), own)
                + bound["strength"] * layer.weight.square().sum()
                for bound, layer in heads
            ]
            optimizer.zero_grad()
            sum(losses).backward()
            optimizer.step()
            schedule.step()
    spent = {name: value / len(bounds) for name, value in clock.read().items()}
    rows = {}
    for bound, layer in heads:
        weights, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        found = measured(weights, bias, train, validation, bound) | spent
        best = rows.get(bound["strength"])
        if best is None or found["validation_accuracy"] > best["validation_accuracy"]:
            rows[bound["strength"]] = found
    say(f"{TITLES['torch']}: {len(heads)} heads in {clock.read()['seconds']:.1f} s")
    return list(rows.values())


def measured(weights, bias, train, validation, bound: dict) -> dict:
    """How far above the certified bound a fit stopped, and what it is worth on validation."""
    value = objective_of(train.inputs, train.labels, weights, bias, bound["strength"])
    return {
        "strength": bound["strength"],
        "objective": float(value),
        "excess": float(value / bound["lower_bound"] - 1),
        "validation_accuracy": accuracy(weights, bias, validation),
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
