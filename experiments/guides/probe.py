"""A linear probe in ten lines, with a certificate.

    python experiments/guides/probe.py

A probe asks how much a frozen network's features know: a linear classifier is fitted to them, and
its test accuracy is the answer. That answer is the network's only if the fit has converged; a fit
that stopped early measures the optimizer, too. Here every fit says how far it can be off.
"""

import numpy as np

from jaxlin import data, metrics, preprocess, scores
from jaxlin.solvers import describe, minimize, minimize_path, relative_gap

# The features would be those of your network: `(N, D)` in `.npy` files. The digits' pixels stand in
# for them. Strengths are compared on validation; the test set is looked at once, at the end.
train, _, test = data.load_splits("digits")
order = np.random.default_rng(0).permutation(len(train.labels))
held, kept = order[: len(order) // 5], order[len(order) // 5 :]
seen = preprocess.fit(train.inputs[kept], "standardize")
strengths = np.logspace(-6, 0, 19)


def scores_of(fit, inputs):
    return scores.linear(fit.params, preprocess.apply(seen, inputs))


# Ten lines from here. One path of fits, each warm from the one before, each proved to 1e-3; then
# the best strength is refitted on training and validation, to a millionth.
path = minimize_path(
    train.inputs[kept], train.labels[kept], strengths=strengths, preprocessing=seen, tolerance=1e-3
)
shares = [metrics.accuracy(scores_of(fit, train.inputs[held]), train.labels[held]) for fit in path]
strength = strengths[int(np.argmax(shares))]
final = minimize(train.inputs, train.labels, strength=strength, preprocessing=seen, tolerance=1e-6)
accuracy = metrics.accuracy(scores_of(final, test.inputs), test.labels)
low, high = metrics.wilson_interval(accuracy, len(test.labels))

print(f"strength    {strength:.1e}, validation accuracy {max(shares):.4f}")
print(f"objective   {final.objective:.7f}, no parameters have less than {final.lower_bound:.7f}")
print(f"status      {describe(final.status)}")
print(f"test        accuracy {accuracy:.4f}  (95 % interval {low:.4f} to {high:.4f})")

# What was promised: the least objective lies between the two numbers, which differ by a millionth.
assert all(relative_gap(fit) <= 1e-3 for fit in path)
assert final.lower_bound <= final.objective <= final.lower_bound * (1 + 2e-6)
# Strengths matter, and the best is not at the end of those that were tried.
assert strengths[0] < strength < strengths[-1]
assert max(shares) > shares[-1]
assert low < accuracy < high
assert accuracy > 0.9

# From the command line the same, with a published protocol and a page to look at:
#     jaxlin sweep --data FOLDER_OF_FEATURES --preset clip --out runs/clip
