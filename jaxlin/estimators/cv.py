"""Classifiers that choose their regularization by cross-validation, every fit certified."""

__all__ = []
