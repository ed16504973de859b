"""Run folders from Python: the jobs of the command line as functions, each returning a `Run`.

A keyword is an option of the command in snake case, with the same default and the same sentence
where it cannot be meant. Data go by name, by path, or as arrays in hand.

>>> from tempfile import mkdtemp
>>> run = train("digits", steps=30, out=mkdtemp())
>>> run.model.params.weights.shape, run.results["n_train"], run.report.name
((10, 64), 1298, 'report.html')
>>> predict(run, [[0.0] * 64]).results["predictions"][0]["input"]
'inputs[0]'
"""

__all__ = ["Run", "evaluate", "gradcheck", "landscape", "open", "predict", "sweep", "train"]

from jaxlin.runs.api import evaluate, gradcheck, landscape, open, predict, sweep, train
from jaxlin.runs.run import Run
