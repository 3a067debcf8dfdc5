"""Covariance of a local posterior by its prior, and by those curvatures that narrow it.

NumPy only.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["Spread", "lanczos"]

# Images that find eigenvalues above a floor: so many for each, and more; looked at now and then.
IMAGES_PER_VALUE, SPARE_IMAGES, LOOKED_EVERY = 1.5, 20, 10


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
        less = self.localization / (self.curvature + self.localization) - 1
        within = (vectors @ self.directions.T) * less
        # In place: vectors may be as many as fit in memory a few times.
        found = within.astype(vectors.dtype) @ self.directions
        found += vectors
        found /= self.localization
        return found


def lanczos(
    product: Callable[[np.ndarray], np.ndarray],
    size: int,
    steps: int,
    *,
    floor: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Approximate eigenpairs of a symmetric product by some of its images (Ritz pairs).

    Orthogonalized against all, as single precision would lose it otherwise.

    Parameters
    ----------
    product, size
        The product, of vectors of this size.
    steps
        Images, at most.
    floor
        Where only larger eigenvalues matter, fewer images are taken: half again as many as there
        are such values, and 20.

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
        if floor is not None and (i + 1) % LOOKED_EVERY == 0:
            found, _ = _ritz(basis[: i + 1], images[: i + 1])
            if len(found) >= IMAGES_PER_VALUE * (found > floor).sum() + SPARE_IMAGES:
                basis, images = basis[: i + 1], images[: i + 1]
                break
    values, rotation = _ritz(basis, images)
    return values, rotation.T @ basis


def _ritz(basis: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    small = basis @ images.T
    return np.linalg.eigh((small + small.T) / 2)
