"""Pictures: small enough to live on the device as bytes, batched and augmented there."""

from lipref.data.batches import Batches, pixels
from lipref.data.datasets import DATASETS, Shape, load_dataset, shape, validation_split
from lipref.data.images import ImageData, Split

__all__ = ["DATASETS", "Batches", "ImageData", "Shape", "Split", "load_dataset", "pixels", "shape", "validation_split"]
