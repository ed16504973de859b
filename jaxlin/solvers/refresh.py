"""Which preconditioner, when: rows are drawn, preconditioners built, and their cost weighed against
going on.

The first sample is drawn at random. What few rows carry (the pixels at the rim of a picture, a rare
category, standardized) it misses, or takes for many times what it is. How much of the Hessian along
its own direction a row makes up is its leverage, c x^T H^-1 x for a row x that bends by c. That of
all rows is estimated in a part of a pass: the scores of weights drawn with covariance H^-1, which
the Gram preconditioner of the first sample makes, have the variance x^T H^-1 x. Where few rows have
most of it, the sample is drawn anew by leverage.

Source: Cohen, Lee, Musco, Musco, Peng and Sidford (2015), "Uniform sampling for matrix
approximation", doi:10.1145/2688073.2688113: beside uniform rows, each counted once, no row's
leverage is less than beside all rows, and together they have not much more.
"""

__all__ = ["SAMPLED_ROWS", "PreconditionerBuilder", "Recipe", "recipe_of"]

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlin.distributed.sharding import fetch
from jaxlin.passes import arithmetic
from jaxlin.solvers.covariance import (
    DENSE_FEATURES,
    WIDE,
    Sample,
    Spectrum,
    covariance_of,
    product,
    sample_of,
    spectrum_of,
    stiffness,
)
from jaxlin.solvers.curvature import DENSE_SIDE, Bends, bends_of, fits_dense
from jaxlin.solvers.dual_losses import Block, DualForm, maximizers, total
from jaxlin.solvers.preconditioner import (
    BELOW_ROWS,
    CLASS_ROWS,
    class_block_preconditioner,
    gram_preconditioner,
    leading_directions,
    spectral_preconditioner,
    thinned,
    two_level_preconditioner,
)
from jaxlin.solvers.problem import Problem
from jaxlin.solvers.rowwise import columnwise, rowwise

SAMPLED_ROWS = 6000
SAMPLED_ENTRIES = 5e7
"""A sample has at most this many numbers: with very many features it has fewer rows."""
FEW_CLASSES = {"smooth": 50, "kinks": 24}
"""Up to so many classes every direction has a block of all of them, beyond every class has one of
the leading directions. The first takes fewer steps while classes are few (a half to a sixth of them
at 30 classes that come in pairs hard to tell apart), the second later on (a half at 100). Losses
with kinks build a preconditioner more often, so that a cheaper one pays sooner (1.5 times at
32)."""
PROJECTIONS = 8
"""Vectors whose scores estimate the leverages: to half of each."""
UNEVEN = 4.0
"""Leverage is uneven where the mean of its square is more than so many times that of an even one:
1.2 to 1.9 for features of networks and for pictures, 240 for standardized Fashion-MNIST."""
ROWS_A_CLASS, SAMPLED_SCORES = 240, 6e6
"""Of many classes a sample has more rows, so that each has some, but no more scores than these."""
FULL_SPECTRUM, FULL_AT_ONCE = 1200, 4.0
"""All eigenvectors of the covariance are computed from the start up to so many features, or where
they cost at most so many passes; else where the leading ones did not do and the run has more to go
than they cost. With these alone a weak penalty takes up to seven times the passes (50,000 x 2,048).
"""
CALLING = 3e7
"""What an evaluation and a step cost besides their work, in multiplications: some 1 ms."""
FRESHER = 1.2
"""A preconditioner built nearer to the optimum is expected to decrease so much faster than the last
did."""
WINDOW = 5
"""Evaluations over which the rate of decrease is judged."""


class Recipe(NamedTuple):
    """What the last preconditioner was built from: enough to build it again."""

    follows: bool
    """Whether it is the Hessian's at the iterate, or the Gram preconditioner."""
    weights: np.ndarray
    bias: np.ndarray
    draw: int
    """Seed of its sample, where it has one of its own."""
    curvature: float | None
    """That its spectrum was made with."""
    whole: bool
    """Whether all directions of the spectrum were known."""


def recipe_of(weights: np.ndarray, bias: np.ndarray, settings: Any) -> Recipe:
    """From what `PreconditionerBuilder.state` returned."""
    follows, draw, curvature, *_, whole = settings.tolist()
    known = None if np.isnan(curvature) else curvature
    return Recipe(bool(follows), weights, bias, int(draw), known, bool(whole))


class PreconditionerBuilder:
    """The preconditioners of one run. Draws the first sample and forms its covariance once."""

    def __init__(self, problem: Problem, shared: "PreconditionerBuilder | None" = None) -> None:
        """`shared`: a builder for the same rows and counts, whose sample and covariance serve."""
        self.problem = problem
        self.curvature: float | None = None
        self.builds, self.passes = 0, 0.0
        self.leverages: np.ndarray | None = None
        """(N,), in [0, 1], where they are uneven."""
        self._spectrum: Spectrum | None = None
        self._gram: tuple[float | None, Any] | None = None
        self._fresh, self._short = 0.0, False
        few = FEW_CLASSES["smooth" if problem.form.smooth else "kinks"]
        self.by_class = problem.classes > few and not fits_dense(problem)
        self.recipe: Recipe | None = None if shared is None else shared.recipe
        soon = self._spectrum_cost() <= FULL_AT_ONCE * self.evaluation_cost()
        self._whole = problem.features <= FULL_SPECTRUM or (
            problem.features <= DENSE_FEATURES and soon
        )
        if shared is not None:
            self.drawn: int = shared.drawn
            self.sample: Sample = shared.sample
            self.covariance: np.ndarray | None = shared.covariance
            self.leverages = shared.leverages
            self.builds, self._short = shared.builds, shared._short
            return
        features = problem.features
        self.drawn = int(min(SAMPLED_ROWS, max(SAMPLED_ENTRIES // problem.rows.entries, 50)))
        self.covariance = None
        if features <= DENSE_FEATURES:
            most = max(self.drawn, 5 * features // 2)
            with self.memory_for(f"the covariance of {features:,} features", "the rows' own span"):
                self.sample = self.draw(problem.counts, most, seed=0)
                self.covariance = covariance_of(problem, self.sample)
                if problem.form.smooth and np.count_nonzero(problem.counts) > most:
                    self._draw_by_leverage(self.covariance, most)
        if self.covariance is None:
            self.sample = self.draw(problem.counts, self.drawn, seed=0)

    def _draw_by_leverage(self, covariance: np.ndarray, most: int) -> None:
        """The first sample and its covariance anew, where leverage is uneven."""
        problem, sample, noise = self.problem, self.sample, np.random.default_rng(0)
        nothing = np.zeros((problem.classes, problem.features)), np.zeros(problem.classes)
        inverse = self.gram(*nothing)
        curvature = self.curvature or 0.0
        # gradients of covariance H, of which the preconditioner makes weights of covariance H^-1
        by_row = noise.normal(size=(len(sample.indices), PROJECTIONS))
        by_row *= np.sqrt(curvature * sample.weights)[:, None]
        drawn = product(problem, sample.rows.T, by_row.astype(problem.dtype)).T.astype(np.float64)
        stiff = stiffness(problem, sample, np.diag(covariance), curvature)
        drawn += np.sqrt(stiff) * noise.normal(size=drawn.shape)
        weights, bias = map(np.asarray, inverse(drawn, np.zeros(PROJECTIONS)))
        scores = fetch(problem.rows.scores(weights, bias)).astype(np.float64)
        self.passes += 0.5 * PROJECTIONS / problem.classes
        reach = curvature * np.mean(scores**2, axis=0)
        if problem.counts @ reach**2 > UNEVEN * (problem.counts @ reach) ** 2:
            # Beside the sample's rows, each counted once: no less than beside all rows.
            self.leverages, self._gram = reach / (reach + len(sample.indices)), None
            self.sample = self.draw(self._mixed(self.leverages), most, seed=0)
            self.covariance = covariance_of(problem, self.sample)

    def _mixed(self, chances: np.ndarray) -> np.ndarray:
        """Chances of the rows, (N,), of which each keeps a tenth of what it has by its count."""
        counts = self.problem.counts
        return counts * (0.9 * chances / (counts @ chances) + 0.1)

    @contextmanager
    def memory_for(self, what: str, instead: str) -> Iterator[None]:
        """Without the memory the block ends early, and a warning says what serves in its place."""
        try:
            yield
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            self._short = True
            warnings.warn(
                f"There is not the memory for {what}; the solver goes on with {instead}. It takes "
                "more passes over the data, and certifies the same gap. Free memory, or give fewer "
                "features, to avoid it.",
                RuntimeWarning,
                stacklevel=2,
            )

    def draw(
        self,
        chances: Any,
        most: int,
        *,
        seed: int,
        mean: np.ndarray | None = None,
    ) -> Sample:
        """All rows with a chance if at most `most`, else `most` drawn by their chances.

        All of them may be any number, for each of which XLA would compile its programs: on a device
        they are filled up with rows of weight 0 to one of few sizes.
        """
        problem = self.problem
        indices = np.flatnonzero(chances > 0)
        weights = problem.counts[indices]
        if len(indices) > most:
            chances = chances / chances.sum()
            generator = np.random.default_rng(seed)
            indices = np.sort(generator.choice(len(chances), most, p=chances))
            weights = problem.counts[indices] / (most * chances[indices])
        elif not problem.on_host:
            more = (0, min(_few_sizes(len(indices)), most, problem.rows.size) - len(indices))
            indices, weights = np.pad(indices, more), np.pad(weights, more)
        return sample_of(problem, indices, weights, mean)

    def scores(self, sample: Sample, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Of the sample's rows, (K, m)."""
        dtype = self.problem.dtype
        level = (bias + weights @ sample.mean).astype(dtype)[:, None]
        if not np.any(weights):  # where most fits begin
            return np.repeat(level, len(sample.indices), axis=1)
        return weights.astype(dtype) @ sample.rows.T + level

    def gram(
        self, weights: np.ndarray, bias: np.ndarray, smoothing: float = 1.0, anchor: Any = 0.0
    ) -> Any:
        """The Gram preconditioner with the mean curvature at this point."""
        problem = self.problem
        self.recipe = Recipe(False, weights, bias, 0, None, self._whole)
        bends = bends_of(
            problem, self.sample, self.scores(self.sample, weights, bias), smoothing, anchor
        )
        own = bends.diagonal.sum() / problem.classes
        self.curvature = max(float(own), 1e-8)
        return self.gram_as_known()

    def gram_as_known(self) -> Any:
        """The Gram preconditioner with the mean curvature that was seen last."""
        problem = self.problem
        if self.covariance is None:
            return spectral_preconditioner(
                problem, self.spectrum(), self.sample.mean, self.curvature
            )
        if self._gram is None or self._gram[0] != self.curvature:
            made = gram_preconditioner(problem, self.covariance, self.sample, self.curvature)
            self._gram = self.curvature, made
        return self._gram[1]

    def spectrum(self) -> Spectrum:
        if self._spectrum is None:
            problem, curvature = self.problem, self.curvature or 1 / self.problem.classes
            features = problem.features
            most = features if self._whole else min(self._leading(), features - 1)
            self._spectrum = spectrum_of(problem, self.sample, self.covariance, curvature, most)
        return self._spectrum

    def _leading(self) -> int:
        """How many directions the blocks of a preconditioner have that follows the iterate."""
        problem = self.problem
        if self.by_class:
            entries = problem.classes * min(CLASS_ROWS, self._most())
            return leading_directions(problem.classes, problem.features, entries)
        return min(DENSE_SIDE // problem.classes - 1, problem.features)

    def following(
        self, weights: np.ndarray, bias: np.ndarray, instead: Callable | None = None
    ) -> tuple[Any, float]:
        """The preconditioner that follows the iterate to this point, and the passes over the data
        it took.

        Without the memory for it: `instead`, or the Gram preconditioner.
        """
        before, passes = self.recipe, 0.0
        self.builds += 1
        with self.memory_for("the Hessian of a sample of rows", "the preconditioner it has"):
            self.recipe = Recipe(True, weights, bias, self.builds, self.curvature, self._whole)
            sample, passes = self._sample_at(weights, bias)
            bends = bends_of(self.problem, sample, self.scores(sample, weights, bias))
            return self._made_of(sample, bends), passes
        self.recipe = before
        return instead or self.gram(weights, bias), passes

    def _made_of(self, sample: Sample, bends: Bends) -> Any:
        """The preconditioner of these rows: all classes together, or of many each by itself."""
        problem, spectrum = self.problem, self.spectrum()
        if not self.by_class:
            return two_level_preconditioner(problem, spectrum, sample, bends)
        few = thinned(bends.own_weights, seed=self.builds)
        return class_block_preconditioner(problem, spectrum, sample, *few)

    def _sample_at(self, weights: np.ndarray, bias: np.ndarray) -> tuple[Sample, float]:
        """Rows drawn by how much they bend and weigh there, and the passes that took."""
        problem, sample = self.problem, self.sample
        if len(sample.indices) <= self.drawn and problem.rows.size <= self.drawn:
            return sample, 0.0
        most = self._most()
        if problem.rows.size <= most:
            return self.draw(problem.counts, most, seed=0, mean=sample.mean), 0.0
        bent = self._bent(weights, bias)
        if self.leverages is not None:
            bent *= self.leverages + 0.1 * self.leverages.mean()
        return self.draw(self._mixed(bent), most, seed=self.builds, mean=sample.mean), 0.5

    def _most(self) -> int:
        """How many rows a preconditioner that follows the iterate is made of."""
        classes, features = self.problem.classes, self.problem.features
        if not self.by_class or not self.problem.form.smooth or self.covariance is None:
            return self.drawn
        most = min(ROWS_A_CLASS * classes, SAMPLED_SCORES / classes, SAMPLED_ENTRIES / features)
        return int(max(self.drawn, most))

    def follow(self, recipe: Recipe) -> Any:
        """The preconditioner that a builder for the same problem left this recipe of."""
        self._know(recipe.whole)
        if not recipe.follows:
            return self.gram(recipe.weights, recipe.bias)
        self.builds, self.curvature = recipe.draw - 1, recipe.curvature
        return self.following(recipe.weights, recipe.bias)[0]

    def state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What it takes to go on with the last preconditioner: where it was built, (K, D) and (K,),
        and (7,) whether it follows the iterate, its draw, its curvature (NaN for none), the number
        of builds, the rate of decrease when it was new, whether memory was short, whether all
        directions of its spectrum were known."""
        recipe = self.recipe
        assert recipe is not None  # something was built
        curvature = np.nan if recipe.curvature is None else recipe.curvature
        own = self.builds, self._fresh, self._short
        settings = recipe.follows, recipe.draw, curvature, *own, recipe.whole
        return recipe.weights, recipe.bias, np.array(settings, np.float64)

    def go_on(self, weights: np.ndarray, bias: np.ndarray, settings: Any) -> Any:
        """The last preconditioner of the builder that this `state` is of, whose work this one goes
        on with; both are for the same problem."""
        preconditioner = self.follow(recipe_of(weights, bias, settings))
        builds, self._fresh, short = settings[3:6].tolist()
        self.builds, self._short = int(builds), bool(short)
        return preconditioner

    def starts_exact(self) -> bool:
        """So few unknowns that the whole Hessian is the cheapest preconditioner from the start."""
        side = (self.problem.features + 1) * self.problem.classes
        return fits_dense(self.problem) and self.problem.rows.size * side**2 <= 2e8

    def worth_rebuilding(
        self, decrements: np.ndarray, since: int, gap: float, target: float
    ) -> bool:
        """Whether a new preconditioner costs less than the evaluations that the old one still
        needs.

        Where all directions of the spectrum cost less, too, the new one and those after know them.

        Args:
          decrements: expected decrease of the objective at each step, which falls as the gap does.
          since: steps since the last preconditioner.
          gap, target: the gap that a proof would leave now, and the one that is wanted.
        """
        if self._short:
            return False
        cheap = self.build_cost() < self.evaluation_cost()
        few = 2 if self.starts_exact() else 3 if cheap else WINDOW
        if since < few or len(decrements) < few:
            return False
        now, before = decrements[-1], decrements[-few]
        if now <= 0 or before <= 0:
            return False
        rate = max(np.log(before / now) / (few - 1), 1e-3)
        if since == few:
            self._fresh = rate
        wanted = max(0.3 * target, 1e-300)
        # once the objective is there the proof may not be: the gradient has to fall on
        distance = np.log(now / wanted if now > wanted else max(gap / max(target, 1e-300), 1.0))
        left = distance / rate
        dear = self._spectrum_cost() + self.build_cost()
        if self.builds and self._could_know() and left * self.evaluation_cost() > dear:
            self._know(True)
            return True
        fresh = self._fresh or rate  # not seen where steps went uncounted when it was new
        after = few + 2 if self.builds == 0 or cheap else distance / (FRESHER * fresh)
        saved = left - after if left > after else 0.0
        return saved * self.evaluation_cost() > self.build_cost()

    def _could_know(self) -> bool:
        """Whether there are directions that preconditioners do not know, but may."""
        return not self._whole and self.covariance is not None

    def _know(self, whole: bool) -> None:
        """Whether preconditioners from now on know all directions of the spectrum, or the leading
        ones."""
        if whole != self._whole:
            self._whole, self._spectrum = whole, None

    def _spectrum_cost(self) -> float:
        """Multiplications that all eigenvectors of the covariance are worth: as timed."""
        return 9.0 * self.problem.features**3

    def evaluation_cost(self) -> float:
        """Multiplications: a pass over the rows."""
        size, classes = self.problem.rows.size, self.problem.classes
        return CALLING + size * classes * (4.0 * self.problem.features + 50.0)

    def build_cost(self) -> float:
        """Multiplications: rows that bend, rotation, blocks and their factors.

        The dense block as if every row entered it with every pair of classes: with the fewer that
        it takes, preconditioners are built so soon after one another that they gain less than they
        cost.
        """
        classes, features = self.problem.classes, self.problem.features
        size = self.problem.rows.size
        drawn, leading = min(self._most(), size), self._leading()
        seen = 2.0 * size * features * classes if size > drawn else 0.0
        directions = features if self._whole else leading
        if self.covariance is None:
            directions = leading = min(WIDE, leading)
        if self.by_class:
            rotation, rows = 2.0 * drawn * features * directions, min(CLASS_ROWS, drawn)
            return seen + rotation + classes * (rows * leading**2 + leading**3 + 50.0 * drawn)
        side = min(classes * (features + 1), DENSE_SIDE)
        below = 2.0 * (directions - leading) * min(drawn, BELOW_ROWS)
        rotation = features * (2.0 * drawn * leading + below)
        return seen + rotation + drawn * side**2 + below * classes**2 + side**3 / 3

    def _bent(self, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """How much each row bends, (N,)."""
        problem = self.problem
        scores = problem.rows.scores(weights, bias)
        with arithmetic(problem.dtype):
            by_row = scores, problem.labels, 0.0, 0.0
            found = columnwise(
                problem, rowwise(_bent_at, problem.form), by_row, problem.margin, 1.0
            )
        return fetch(found).astype(np.float64) + 1e-12


def _few_sizes(size: int) -> int:
    """The next of sizes that grow by a half."""
    return int(max(512, np.ceil(1.5 ** np.ceil(np.log(max(size, 1)) / np.log(1.5)))))


def _bent_at(xp: Any, form: DualForm, block: Block) -> Any:
    bend = form.bend(xp, maximizers(xp, form, block)[0], block.smoothing)
    return total(xp, bend.diagonal - bend.kappa[None, :] * bend.diagonal**2)
