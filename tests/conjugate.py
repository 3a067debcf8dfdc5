"""A regression whose posterior is known under any weights of its rows, with exact draws."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from ppl_bif.schema import inference_data


class Regression(NamedTuple):
    """Rows ``x (row, 2)``, ``y (row,)``, noise of sd 1; slopes' prior is N(0, 1 / precision)."""

    x: np.ndarray
    y: np.ndarray
    precision: float = 0.1

    def posterior(self, weights):
        """Mean and covariance of the slopes, each row counted so many times."""
        covariance = np.linalg.inv(
            self.precision * np.eye(2) + self.x.T @ (weights[:, None] * self.x)
        )
        return covariance @ self.x.T @ (weights * self.y), covariance

    def draws(self, chains=4, draws=4000, seed=0):
        """Draw slopes, and their rows' log-likelihoods, as InferenceData."""
        mean, covariance = self.posterior(np.ones(len(self.y)))
        rng = np.random.default_rng(seed)
        slopes = rng.multivariate_normal(mean, covariance, size=(chains, draws))
        loglik = -((self.y - slopes @ self.x.T) ** 2) / 2
        names = [f"r{i}" for i in range(len(self.y))]
        return inference_data(
            {
                "posterior": xr.Dataset({"slope": (("chain", "draw", "at"), slopes)}),
                "log_likelihood": xr.Dataset(
                    {"y": (("chain", "draw", "row"), loglik)}, {"row": names}
                ),
                "constant_data": xr.Dataset({"half": ("row", np.arange(len(self.y)) % 2)}),
            },
            {},
        )


def regression(rows=40, noise=1.0, seed=1):
    """Make rows whose noise grows with x, unlike the model says."""
    rng = np.random.default_rng(seed)
    x = np.stack([np.ones(rows), rng.normal(size=rows)], axis=1)
    return Regression(x, x @ [1.0, 2.0] + noise * (0.3 + np.abs(x[:, 1])) * rng.normal(size=rows))
