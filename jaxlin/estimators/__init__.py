"""scikit-learn classifiers whose every fit says how far from the optimum it stopped."""

__all__ = [
    "MulticlassSVMClassifier",
    "MulticlassSVMClassifierCV",
    "SoftmaxClassifier",
    "SoftmaxClassifierCV",
    "to_onnx",
]


from jaxlin.estimators.cv import MulticlassSVMClassifierCV, SoftmaxClassifierCV
from jaxlin.estimators.interop import to_onnx
from jaxlin.estimators.softmax import SoftmaxClassifier
from jaxlin.estimators.svm import MulticlassSVMClassifier
