"""Cost against quality: how well scores foretell retraining on half of the data (LDS)."""
