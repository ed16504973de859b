"""To scikit-learn's own classes and back, and through them to ONNX."""

__all__ = ["linear_svc_of", "logistic_regression_of", "take_over", "to_onnx"]

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.special
from sklearn.utils.validation import check_is_fitted

from jaxlin.estimators.offsets import refuse_offsets


def logistic_regression_of(model: Any) -> Any:
    """A `LogisticRegression` that predicts what `model` predicts."""
    from sklearn.linear_model import LogisticRegression

    check_is_fitted(model, "coef_")
    refuse_offsets(model, "scikit-learn")
    ratio = getattr(model, "l1_ratio", 0.0)  # "saga" is what fits any
    mixed = {"l1_ratio": ratio, "solver": "saga"} if ratio else {}
    settings = {"C": model.C_, "fit_intercept": model.fit_intercept} | _shared(model) | mixed
    return _dressed(LogisticRegression(**settings), model)


def linear_svc_of(model: Any) -> Any:
    """A `LinearSVC` that predicts what `model` predicts.

    Its own `fit` would minimize the same loss where it has it; it has no Weston-Watkins hinge,
    for which the nearest, Crammer and Singer's, is set.
    """
    from sklearn.svm import LinearSVC

    check_is_fitted(model, "coef_")
    refuse_offsets(model, "scikit-learn")
    separate = model.loss.endswith("one-vs-rest")
    return _dressed(
        LinearSVC(
            C=model.C_,
            loss="squared_hinge" if model.loss.startswith("squared") else "hinge",
            multi_class="ovr" if separate else "crammer_singer",
            fit_intercept=model.fit_intercept,
            **_shared(model),
        ),
        model,
    )


def _shared(model: Any) -> dict[str, Any]:
    return {"class_weight": model.class_weight, "tol": model.tol, "max_iter": model.max_iter}


def _dressed(theirs: Any, model: Any) -> Any:
    theirs.coef_ = np.array(model.coef_)
    theirs.intercept_ = np.array(model.intercept_)
    theirs.classes_ = model.classes_.copy()
    theirs.n_features_in_ = model.n_features_in_
    theirs.n_iter_ = np.array([model.n_iter_], np.int32)
    if hasattr(model, "feature_names_in_"):
        theirs.feature_names_in_ = model.feature_names_in_.copy()
    return theirs


def take_over(cls: type, fitted: Any) -> Any:
    """A `cls` with the coefficients of a fitted scikit-learn classifier."""
    name = type(fitted).__name__
    if not all(hasattr(fitted, part) for part in ("coef_", "intercept_", "classes_")):
        raise TypeError(
            f"`fitted` must be a fitted linear classifier of scikit-learn, got {name} without "
            "`coef_`, `intercept_` and `classes_`. Fit it first; of a pipeline take the last step."
        )
    classes, coef = np.array(fitted.classes_), fitted.coef_
    coef = coef.toarray() if scipy.sparse.issparse(coef) else np.atleast_2d(np.array(coef))
    rows = 1 if len(classes) == 2 else len(classes)
    over_pairs = rows > 1 and hasattr(fitted, "dual_coef_")
    if coef.ndim != 2 or coef.shape[0] != rows or over_pairs:
        raise TypeError(
            f"`fitted` must have one row of `coef_` per class, ({rows}, D), got {coef.shape}: "
            f"a {name} that votes over pairs of classes is no linear classifier."
        )
    if hasattr(cls, "predict_proba") and not _is_softmax(fitted, coef):
        raise TypeError(
            f"`fitted` must estimate softmax probabilities, as LogisticRegression does, but "
            f"this {name} does not. Take MulticlassSVMClassifier.from_sklearn for it."
        )
    settings: dict[str, Any] = {
        "C": _C_of(fitted),
        "fit_intercept": bool(getattr(fitted, "fit_intercept", True)),
    }
    settings["class_weight"] = getattr(fitted, "class_weight", None)
    known = cls().get_params()
    if "loss" in known:
        settings["loss"] = _hinge_of(fitted)
    if "l1_ratio" in known:
        settings["l1_ratio"] = _l1_ratio_of(fitted)
    model = cls(**settings)
    model.classes_, model.coef_ = classes, coef
    model.intercept_ = np.broadcast_to(np.array(fitted.intercept_, coef.dtype), (rows,)).copy()
    model.n_features_in_ = coef.shape[1]
    steps = getattr(fitted, "n_iter_", None)
    model.n_iter_ = 1 if steps is None else int(np.max(steps))
    model.C_ = settings["C"]
    if hasattr(fitted, "feature_names_in_"):
        model.feature_names_in_ = np.array(fitted.feature_names_in_)
    return model


def _C_of(fitted: Any) -> float:
    """The inverse strength that `fitted` had; 1, the default here, where it knows no `C`."""
    if getattr(fitted, "penalty", "l2") is None:
        return np.inf
    return float(np.ravel(getattr(fitted, "C_", getattr(fitted, "C", 1.0)))[0])


def _is_softmax(fitted: Any, coef: np.ndarray) -> bool:
    """Whether its probabilities are the softmax of its scores, tried where these differ by 1 or so.

    Those of machines for one class each, or of a calibration, are not.
    """
    if not hasattr(fitted, "predict_proba"):
        return False
    coef = coef.astype(np.float64)
    leads = coef - coef.mean(0) if len(coef) > 1 else coef
    squares = (leads**2).sum(1, keepdims=True)
    along = leads / np.where(squares > 0, squares, 1.0)
    # all scores are about 0 there: far below, those of machines for one class each look alike
    level = -np.linalg.pinv(coef, rcond=1e-10) @ np.broadcast_to(fitted.intercept_, len(coef))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of features without names
        rows = np.vstack([level + along, level - along / 2])
        scores, found = fitted.decision_function(rows), fitted.predict_proba(rows)
    if scores.ndim == 1:
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    return bool(np.abs(scipy.special.softmax(scores, axis=1) - found).max() < 1e-4)


def _hinge_of(fitted: Any) -> str:
    """The loss that `fitted` minimized, as far as its parameters say."""
    squared = "squared-" if "squared" in str(getattr(fitted, "loss", "hinge")) else ""
    if getattr(fitted, "multi_class", None) == "crammer_singer":
        return "crammer-singer"
    return squared + "one-vs-rest"


def _l1_ratio_of(fitted: Any) -> float:
    """As scikit-learn says it now, or, by `penalty`, before 1.8.

    That of a `Perceptron` is for another penalty than the one that it has.
    """
    penalty = getattr(fitted, "penalty", "l2")
    if penalty in ("l1", "l2", None):
        return float(penalty == "l1")
    return float(
        np.ravel(getattr(fitted, "l1_ratio_", getattr(fitted, "l1_ratio", None) or 0.0))[0]
    )


def to_onnx(model: Any, path: str | Path | None = None) -> bytes:
    """The classifier as an ONNX model with two outputs: labels, and probabilities or scores (N, K).

    Needs the extra `export`. Inputs are float32, (N, D).

    Args:
      model: any fitted classifier of this module.
      path: file to write, or `None`.

    Returns:
      The serialized model.

    Raises:
      ImportError: the extra is not installed.

    >>> from jaxlin.estimators import SoftmaxClassifier
    >>> content = to_onnx(SoftmaxClassifier().fit([[0.0], [1.0], [2.0]], [0, 1, 1]))
    >>> type(content), len(content) > 100
    (<class 'bytes'>, True)
    """
    try:
        import skl2onnx
    except ImportError as missing:
        raise ImportError("ONNX export needs skl2onnx: pip install 'jaxlin[export]'") from missing
    theirs = model.to_sklearn()
    plain = {"zipmap": False} if hasattr(theirs, "predict_proba") else {"raw_scores": True}
    sample = np.zeros((1, model.n_features_in_), np.float32)
    converted = skl2onnx.to_onnx(theirs, sample, options={id(theirs): plain})
    content = converted.SerializeToString()
    if path is not None:
        Path(path).write_bytes(content)
    return content
