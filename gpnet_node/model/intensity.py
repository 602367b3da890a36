"""What training and inference do alike to the intensities of an image."""

import numpy as np
from torch import Tensor


def normalise(image: Tensor) -> Tensor:
    """Clip to the 0.5-99.5 % range, then zero mean and unit deviation."""
    flat = image.flatten()
    low, high = np.percentile(flat[:: max(1, len(flat) // 50_000)].numpy(), [0.5, 99.5])
    clipped = image.clamp(float(low), float(high))
    return (clipped - clipped.mean()) / clipped.std().clamp(min=1e-6)
