"""Training augmentations of whole batches. They draw nothing themselves, or from a seed that they are given."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lipref.data.fetch import import_torchvision

RANDAUGMENT_GROUP = 8


def crop_flip(images: Tensor, offsets: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Random crop with zero padding, then horizontal flip, each picture its own.

    images: (B, C, H, W), mean already subtracted, so that the padding has the mean colour. offsets: int64, (B, 2),
    row and column of the crop's corner in the padded picture, 0 to 2 * padding. flips: bool, (B,). Gives (B, C, H,
    W).
    """
    _, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(len(images), width)
    columns = offsets[:, 1:] + torch.where(flips[:, None], width - 1 - columns, columns)
    batch = torch.arange(len(images), device=images.device)
    channel = torch.arange(channels, device=images.device)
    return padded[batch[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def randaugment(images: Tensor, seed: int) -> Tensor:
    """RandAugment (Cubuk et al., 2020, arXiv 1909.13719), two operations of magnitude 9 of 31.

    images: bytes, uint8, (B, 3, H, W), as is the answer.

    Deviation from the usual practice, and from Prach et al. (CVPR 2024): the operations are drawn once per group of 8
    pictures, not once per picture, because they run on the device on whole groups. Batches are shuffled, so the groups
    change every epoch.

    The global random state is left as it was. Raises LiprefError when torchvision does not load.
    """
    import_torchvision()
    from torchvision.transforms import v2

    policy = v2.RandAugment(num_ops=2, magnitude=9)
    # torchvision draws from torch's default CPU generator; torch.manual_seed would also reseed the accelerators'.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return torch.cat([policy(group) for group in images.split(RANDAUGMENT_GROUP)])
