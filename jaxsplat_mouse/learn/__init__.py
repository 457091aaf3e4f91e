"""Feed-forward models that learn from the datasets: photographs in, Gaussians out, in one pass."""
