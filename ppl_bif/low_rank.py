"""Covariance of a local posterior by its prior, and by those curvatures that narrow it.

NumPy only.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["Spread", "lanczos"]

# Vectors that are multiplied at once, and columns that are: no second copy of all is held.
AT_ONCE, COLUMNS = 32, 2**16
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
        """Multiply vectors ``(vector, d)``, which is done in place.

        Examples
        --------
        >>> Spread(np.array([3.0]), np.array([[1.0, 0.0]]), 1.0).times(np.ones((1, 2)))
        array([[0.25, 1.  ]])
        """
        less = self.localization / (self.curvature + self.localization) - 1
        for some in np.array_split(vectors, -(-len(vectors) // AT_ONCE)):
            within = (some @ self.directions.T) * less
            some += within.astype(some.dtype) @ self.directions
            some /= self.localization
        return vectors


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
    # The images in the basis, which are not held themselves.
    small = np.zeros((len(basis), len(basis)), np.float32)
    vector: np.ndarray = np.random.default_rng(0).normal(size=size).astype(np.float32)
    found = 0
    while found < len(basis):
        length = np.linalg.norm(vector)
        for _ in range(2):
            vector = vector - (basis[:found] @ vector) @ basis[:found]
        if np.linalg.norm(vector) <= 1e-5 * length:
            # The images lie in the space already.
            break
        basis[found] = vector / np.linalg.norm(vector)
        vector = product(basis[found])
        found += 1
        small[:found, found - 1] = small[found - 1, :found] = basis[:found] @ vector
        if floor is not None and found % LOOKED_EVERY == 0:
            above = (np.linalg.eigvalsh(small[:found, :found]) > floor).sum()
            if found >= IMAGES_PER_VALUE * above + SPARE_IMAGES:
                break
    values, rotation = np.linalg.eigh(small[:found, :found])
    return values, _rotated(basis[:found], rotation)


def _rotated(basis: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Multiply by a transposed rotation, in place."""
    for start in range(0, basis.shape[1], COLUMNS):
        some = basis[:, start : start + COLUMNS]
        some[:] = rotation.T @ some
    return basis
