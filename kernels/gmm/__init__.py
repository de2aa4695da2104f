"""Log-likelihood of Gaussian mixtures with diagonal covariance."""

from .op import gmm_log_likelihood, linear_gmm_log_likelihood

__all__ = ["gmm_log_likelihood", "linear_gmm_log_likelihood"]
