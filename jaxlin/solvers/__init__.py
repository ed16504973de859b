"""Full-batch solvers that prove how far from the optimum they stopped.

What lies where, in the order in which a fit comes by:

    solve           `minimize`: what was asked, which solver, what is handed back
    problem         the problem as every solver sees it, checked
    path            many strengths, folds; `interpolation` between two solved strengths

    smooth          softmax and squared hinges: from one pass over the rows to the next
      fitting       what a fit begins with; `mean_loss` is the pass
      lbfgs         its state, and a step; `history` the pairs of differences
      refresh       when a preconditioner is built anew, of which rows
      covariance    these rows, and the leading directions of the data
      curvature     their second derivatives; `preconditioner` what is made of both
    proximal_point  losses with kinks, round after round; `smoothing` their rows, `newton` their
                    directions
    owlqn           l1 and the elastic net
    small, interior few rows: Newton's method, and an interior point method, in NumPy

    compiled        one fit as one program; `truncated_newton` its steps, `implicit` its
                    derivatives, `offsets` for fixed parts of the scores
    krylov          conjugate gradients, the least of an objective on a line

    dual_losses     the losses as maxima over dual variables
    certificate     the proof; `balance` makes its dual point balance, `dual_gap` is the gap
                    inside of a program
    rowwise         functions of scores, row by row, wherever these lie
    separation      whether there is an optimum at all without a penalty
    states, status  what files keep of a fit; why it stopped
"""

__all__ = [
    "Certificate",
    "Solution",
    "Status",
    "certify",
    "describe",
    "influence",
    "minimize",
    "minimize_compiled",
    "minimize_path",
    "prove",
    "relative_gap",
]

from jaxlin.core import Solution
from jaxlin.solvers.certificate import Certificate, certify
from jaxlin.solvers.compiled import minimize_compiled, prove
from jaxlin.solvers.implicit import influence
from jaxlin.solvers.path import minimize_path
from jaxlin.solvers.solve import minimize
from jaxlin.solvers.status import Status, describe, relative_gap
