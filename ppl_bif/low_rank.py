"""Covariance of a local posterior by its prior, and by those curvatures that narrow it.

NumPy only.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["Spread", "lanczos"]


class Spread(NamedTuple):
    """The matrix (H + gamma I)^-1 where H has few directions.

    Attributes
    ----------
    curvature
        Eigenvalues of H, ``(direction,)``.
    directions
        Its eigenvectors, ``(direction, d)``.
    localization
        gamma.
    """

    curvature: np.ndarray
    directions: np.ndarray
    localization: float

    def times(self, vectors: np.ndarray) -> np.ndarray:
        """Multiply vectors ``(vector, d)``.

        Examples
        --------
        >>> Spread(np.array([3.0]), np.array([[1.0, 0.0]]), 1.0).times(np.ones((1, 2)))
        array([[0.25, 1.  ]])
        """
        less = 1 / (self.curvature + self.localization) - 1 / self.localization
        within = (vectors @ self.directions.T) * less
        return vectors / self.localization + within.astype(vectors.dtype) @ self.directions


def lanczos(
    product: Callable[[np.ndarray], np.ndarray], size: int, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Approximate eigenpairs of a symmetric product by so many of its images (Ritz pairs).

    Orthogonalized against all, as single precision would lose it otherwise.

    Returns
    -------
    values : numpy.ndarray, (step,)
        Smallest first.
    vectors : numpy.ndarray, (step, size)

    Examples
    --------
    >>> matrix = np.diag([5.0, 2.0, 1.0]).astype(np.float32)
    >>> lanczos(lambda v: matrix @ v, 3, 10)[0].round(3)
    array([1., 2., 5.], dtype=float32)
    """
    basis = np.zeros((min(size, steps), size), np.float32)
    images = np.zeros_like(basis)
    vector: np.ndarray = np.random.default_rng(0).normal(size=size).astype(np.float32)
    for i in range(len(basis)):
        length = np.linalg.norm(vector)
        for _ in range(2):
            vector = vector - (basis[:i] @ vector) @ basis[:i]
        if np.linalg.norm(vector) <= 1e-5 * length:
            # The images lie in the space already.
            basis, images = basis[:i], images[:i]
            break
        basis[i] = vector / np.linalg.norm(vector)
        vector = images[i] = product(basis[i])
    small = basis @ images.T
    values, rotation = np.linalg.eigh((small + small.T) / 2)
    return values, rotation.T @ basis
