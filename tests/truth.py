"""Laws that samplers and scores are held against, in closed form, for the Gaussian linear model.

The model is y ~ N(x w, 1) under the local posterior of ``design``: precision
A = beta X'X + gamma I, mean mu with A mu = beta X'y + gamma w*.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["Linear", "make_linear"]


class Linear(NamedTuple):
    """Data and settings of a localized linear regression."""

    x: np.ndarray
    y: np.ndarray
    mode: np.ndarray
    beta: float
    gamma: float

    @property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        return np.float32(self.x), np.float32(self.y)

    def precision(self) -> np.ndarray:
        return self.beta * self.x.T @ self.x + self.gamma * np.eye(self.x.shape[1])

    def mean(self) -> np.ndarray:
        right = self.beta * self.x.T @ self.y + self.gamma * self.mode
        return np.linalg.solve(self.precision(), right)

    def covariance(self) -> np.ndarray:
        return np.linalg.inv(self.precision())

    def sgld_covariance(self, eps: float, batch: int, *, centred: bool = False) -> np.ndarray:
        """Stationary covariance of minibatch SGLD, without replacement, solved exactly.

        With d = w - mu and a minibatch B, d' = (I - eps/2 H_B) d - eps/2 z_B + N(0, eps I), where
        H_B and z_B, the minibatch estimates of A and of the gradient at mu, have means A and 0. So
        S = M S M + eps^2/4 E[(H_B - A) S (H_B - A)] + eps^2/4 Cov(z_B) + eps I, M = I - eps/2 A,
        which is linear in S. Minibatch gradients may be ``centred`` by their values at w*.
        """
        rows, d = self.x.shape
        noise = rows**2 / batch * (1 - batch / rows) / (rows - 1) * self.beta**2
        outer = np.einsum("na,nb->nab", self.x, self.x)
        outer = (outer - outer.mean(0)).reshape(rows, d * d)
        # Sum over rows of a_ij a_kl, arranged so that it maps S_jk to the (i, l) entry.
        fourth = (outer.T @ outer).reshape(d, d, d, d)
        spread = np.einsum("ijkl->iljk", fourth).reshape(d * d, d * d) * noise
        offset = self.x @ self.mode if centred else self.y
        gradients = self.x * (self.x @ self.mean() - offset)[:, None]
        gradients = gradients - gradients.mean(0)
        drift = np.eye(d) - eps / 2 * self.precision()
        step = np.kron(drift, drift) + eps**2 / 4 * spread
        source = eps * np.eye(d) + eps**2 / 4 * noise * gradients.T @ gradients
        return np.linalg.solve(np.eye(d * d) - step, source.ravel()).reshape(d, d)

    def influence(self, x: np.ndarray, y: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """beta Cov(log p_i, log p_q) = beta (r_i r_q s_iq + s_iq^2 / 2), ``(query, train)``."""
        s = x @ covariance @ self.x.T
        return self.first_order(x, y, covariance) + self.beta * s**2 / 2

    def first_order(self, x: np.ndarray, y: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """The part of it by mean gradients, beta r_i r_q s_iq, ``(query, train)``."""
        residuals = np.outer(y - x @ self.mean(), self.y - self.x @ self.mean())
        return self.beta * residuals * (x @ covariance @ self.x.T)


def make_linear(rows: int, d: int, *, beta: float = 1.0, gamma: float = 50.0) -> Linear:
    """Draw a regression whose weights w* are off the posterior mean, so that both are seen."""
    rng = np.random.default_rng(d)
    x = rng.normal(size=(rows, d)).astype(np.float32).astype(float)
    mode = rng.normal(size=d).astype(np.float32).astype(float)
    y = (x @ mode + rng.normal(size=rows)).astype(np.float32).astype(float)
    return Linear(x, y, mode, beta, gamma)
