"""Fused operators for anomaly detection, usable alone: nothing here imports the rest of vitlite."""
