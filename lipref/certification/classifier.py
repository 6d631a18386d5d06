"""A saved network as a classifier that gives every prediction its certified radius."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

import lipref
from lipref import paths, tensor_files
from lipref.certification.bounds import Audit, network_bound
from lipref.certification.certify import EvaluationError, certify, margins
from lipref.certification.float_error import evaluation_error
from lipref.certification.inputs import Images, InputFormat, Pictures
from lipref.data import ImageData
from lipref.errors import LiprefError, whole_number
from lipref.layers import LAYERS, LayerSpec, resolve
from lipref.nets import ConvNet, convnet
from lipref.training.config import TrainingConfig
from lipref.training.record import RunConfig

WEIGHTS = "weights.safetensors"


class Outcome(NamedTuple):
    """What is certified of N pictures.

    predictions int64 ``(N,)``; margins float64 ``(N,)``, of the given labels or else the predictions; radii float64
    ``(N,)``, l2 over pixels in [0, 1], 0 where nothing is certified.
    """

    predictions: Tensor
    margins: Tensor
    radii: Tensor


class CertifiedClassifier:
    """A trained network, its proved Lipschitz bound, and predictions with certified radii.

    Attributes: ``model``, a copy in evaluation mode, free to be changed; ``config``, the run's; ``input``, the
    `InputFormat`; ``path``, the weights' file, and ``sha256``, that of the function: the tensors, the network that they
    are of and its input, whatever the bytes of the file. Predictions are always those of the stored weights.
    """

    def __init__(self, network: ConvNet, config: RunConfig, form: InputFormat, path: Path, sha256: str) -> None:
        self.model = network.eval()
        self.config, self.input, self.path, self.sha256 = config, form, path, sha256
        # The certified function: float64, every operator prepared anew.
        self._network = copy.deepcopy(network).eval().double().requires_grad_(False)
        self._device = next(self._network.parameters()).device

    @cached_property
    def audit(self) -> Audit:
        """Bounds per layer and their product (`lipref.certification.bounds.network_bound`)."""
        return network_bound(self._network)

    @property
    def bound(self) -> float | None:
        """Proved upper bound of the network's l2 Lipschitz constant, or None."""
        return self.audit.bound

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the logits."""
        return tuple(self.input.classes)

    @cached_property
    def evaluation_error(self) -> EvaluationError | None:
        """Bound of the rounding in float64 evaluation, or None where a layer brings none."""
        error = evaluation_error(self._network, self.audit)
        return None if error.slope is None else error

    def certify(self, batches: Iterable[tuple[Tensor, Tensor | None]]) -> Outcome:
        """Certify ``(pixels, labels)``: uint8 ``(B, C, H, W)``, 0 to ``input.levels``, and int64 ``(B,)``.

        Without labels the predictions take their place. The radii are those of `lipref.certify`.

        Raises:
            LiprefError: pixels of another dtype or above the levels, labels that are none of the classes or not one
            per picture, no pictures, or logits that are not finite.
        """
        found = []
        # Tensors on the device, as in lipref.data.pixels: CUDA divides by a Python number through its reciprocal.
        levels = torch.tensor(self.input.levels, dtype=torch.float64, device=self._device)
        mean = torch.tensor(self.input.mean, dtype=torch.float64, device=self._device)[:, None, None]

        def inputs() -> Iterator[tuple[Tensor, Tensor]]:
            for pixels, labels in batches:
                if pixels.dtype != torch.uint8 or not len(pixels):
                    raise LiprefError(
                        f"pixels are {pixels.dtype} of shape {tuple(pixels.shape)}: give uint8, not empty"
                    )
                if labels is not None:
                    self._check_labels(labels, len(pixels))
                if (top := int(pixels.max())) > self.input.levels:
                    raise LiprefError(
                        f"a pixel is {top}, but the network was trained on 0 to {self.input.levels}: "
                        "bring the pictures to these levels"
                    )
                x = pixels.to(self._device).double().div_(levels).sub_(mean)
                logits = self._network(x.clone())  # a module may work in place
                index = logits.argmax(1)
                labels = index if labels is None else labels.to(self._device)
                found.append((index.cpu(), margins(logits, labels).cpu()))
                yield x, labels

        with torch.no_grad():
            certificate = certify(self._network, inputs(), self.bound, self.evaluation_error)
        predictions, margin = (torch.cat(part) for part in zip(*found, strict=True))
        radii = certificate.radii.clamp_min(0) if certificate.proved else torch.zeros_like(margin)
        return Outcome(predictions, margin, torch.nextafter(radii, torch.zeros_like(radii)))

    def _check_labels(self, labels: Tensor, count: int) -> None:
        if labels.dtype != torch.int64 or labels.shape != (count,):
            raise LiprefError(f"labels are {labels.dtype} of shape {tuple(labels.shape)}: give int64 of ({count},)")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.classes):
            raise LiprefError(f"labels from {low} to {high}: give 0 to {len(self.classes) - 1}, the network's classes")

    def predict(
        self, images: Images, batch_size: int = 256, progress: bool = False, resize: bool = False
    ) -> pd.DataFrame:
        """Classes and certified radii, evaluated in float64.

        Args:
            images: uint8 pixels, an array or tensor ``(N, C, H, W)``, ``(N, H, W, C)`` or, for grey networks,
                ``(N, H, W)``; the path of a picture or of a folder, or a list of paths.
            batch_size: pictures evaluated together.
            progress: show a bar on standard error.
            resize: bring square pictures of another side to the network's (bilinear). A radius is then one for the
                resized picture and says nothing of the original; ``attrs["resized"]`` of the result tells.

        Returns:
            A row per picture, indexed by path or number: ``class`` (name), ``index``, ``radius`` (certified, l2, over
            pixels in [0, 1], rounded towards zero; 0 for ties and where no bound is proved), ``margin`` (of the two
            largest logits).

        Raises:
            LiprefError: pixels that are not uint8, another size without ``resize``, unreadable files, no pictures.
        """
        batch_size = whole_number("batch_size", batch_size)
        pictures = Pictures(images, self.input, resize)

        def batches() -> Iterator[tuple[Tensor, None]]:
            with tqdm(total=len(pictures), unit="picture", disable=not progress) as bar:
                for pixels in pictures.batches(batch_size):
                    yield pixels, None
                    bar.update(len(pixels))

        outcome = self.certify(batches())
        columns = {
            "class": [self.input.classes[i] for i in outcome.predictions.tolist()],
            "index": outcome.predictions.numpy(),
            "radius": outcome.radii.numpy(),
            "margin": outcome.margins.numpy(),
        }
        frame = pd.DataFrame(columns, index=pictures.names)
        frame.attrs["resized"] = pictures.resized
        return frame


def weights_file(path: str | os.PathLike[str]) -> Path:
    """The weights of a run: ``path`` is the file, the run's folder, its record, or the name of a run in data/runs.

    Raises:
        LiprefError: a folder without weights, or a name of no run or of several.
    """
    path = Path(path)
    if path.name == str(path) and not path.exists():
        found = sorted(weights.parent for weights in paths.RUNS.rglob(WEIGHTS) if weights.parent.name == path.name)
        if len(found) != 1:
            which = "several: " + ", ".join(map(str, found)) if found else "none, and there is no such file"
            raise LiprefError(f"of the runs in {paths.RUNS} named {path} there are {which}; give the path of a run")
        path = found[0]
    if path.name == "record.json":
        path = path.parent
    if not path.is_dir():
        return path
    if not (path / WEIGHTS).exists():
        raise LiprefError(f"{path} holds no {WEIGHTS}: give the folder of a run that is done and did not diverge")
    return path / WEIGHTS


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 (hex) of a file's bytes."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LiprefError(f"{path}: cannot be read ({error.strerror or error}): check the path") from None


def read_config(path: str | os.PathLike[str]) -> RunConfig:
    """The configuration of the run that ``path`` (as for `load`) belongs to.

    Raises:
        LiprefError: no weights of a run.
    """
    return _config(weights_file(path), tensor_files.load(weights_file(path))[1])


def load(
    path: str | os.PathLike[str], *, data: ImageData | None = None, layer: str | None = None,
    device: str | torch.device = "cpu",
) -> CertifiedClassifier:  # fmt: skip
    """Rebuild the network of a run from its weights.

    Args:
        path: the run's folder, its ``weights.safetensors``, its ``record.json``, or the name of a folder anywhere in
            data/runs.
        data: the data set of the run, limited as it was; needed only for weights that do not tell their input.
        layer: for a run of a user's own layer, ``path/to/file.py:Class``; nothing of the file is executed unless its
            SHA-256 is that of the run.
        device: where to predict, ``cpu`` or ``cuda``.

    Returns:
        The network in evaluation, with its proved bound; ``predict`` takes uint8 pixels ``(N, C, H, W)`` or files.

    Raises:
        LiprefError: weights that are missing, damaged, not finite or of another network; a layer or data set that is
        not the run's.

    Example:
        >>> from lipref import load, load_dataset
        >>> classifier = load(run)  # such as "data/runs/digits/digits-XS-aol-seed0-..."
        >>> images = load_dataset("digits").test.images[:3]
        >>> list(classifier.predict(images))
        ['class', 'index', 'radius', 'margin']
    """
    path, tensors, config, form = _read(path, data)
    spec = _layer(path, config, layer)
    if bad := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise LiprefError(f"{path}: {bad[0]} is not finite: train the network again")
    default = torch.get_default_dtype()
    kinds = {tensor.dtype for tensor in tensors.values()}
    try:  # a user's layer may know no other way to its dtype
        torch.set_default_dtype(torch.float32 if torch.float32 in kinds else torch.float64)
        with torch.random.fork_rng(devices=[]):  # building draws weights that are replaced at once
            network = convnet(config.size, spec, len(form.classes), form.channels, form.image_size)
    finally:
        torch.set_default_dtype(default)
    # A scale was stored without an axis once; the layers load both.
    built = {name: (tuple(tensor.shape) or (1,), tensor.dtype) for name, tensor in network.state_dict().items()}
    stored = {name: (tuple(tensor.shape) or (1,), tensor.dtype) for name, tensor in tensors.items()}
    if odd := sorted(name for name in built.keys() | stored.keys() if built.get(name) != stored.get(name)):
        raise LiprefError(
            f"{path}: {odd[0]} is not that of {config.layer} {config.size} in lipref {lipref.__version__}: "
            f"use lipref {config.version}, which wrote it"
        )
    network.load_state_dict(tensors, strict=True)
    if config.version != lipref.__version__:
        warnings.warn(
            f"{path} is of lipref {config.version}, this is {lipref.__version__}: its layers may differ", stacklevel=2
        )
    try:
        network = network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise LiprefError(f"device {device!r} cannot be used ({str(error).splitlines()[0]}): give 'cpu'") from None
    return CertifiedClassifier(network, config, form, path, _sha256(tensors, config, form))


def weights_sha256(path: str | os.PathLike[str], data: ImageData | None = None) -> str:
    """`CertifiedClassifier.sha256` of the weights in ``path``; arguments and errors are those of `load`."""
    _, tensors, config, form = _read(path, data)
    return _sha256(tensors, config, form)


def _read(
    path: str | os.PathLike[str], data: ImageData | None
) -> tuple[Path, dict[str, Tensor], RunConfig, InputFormat]:
    path = weights_file(path)
    tensors, meta = tensor_files.load(path)
    config = _config(path, meta)
    return path, tensors, config, _input_format(path, meta, config, data)


def _sha256(tensors: dict[str, Tensor], config: RunConfig, form: InputFormat) -> str:
    parts = [tensor_files.fingerprint(tensors), config.size, config.layer, config.layer_sha256, form.as_dict()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _config(path: Path, meta: dict) -> RunConfig:
    try:
        return RunConfig(**(meta["config"] | {"settings": TrainingConfig(**meta["config"]["settings"])}))
    except (KeyError, TypeError):
        raise LiprefError(f"{path} does not hold the weights of a run: give a run's {WEIGHTS}") from None


def _input_format(path: Path, meta: dict, config: RunConfig, data: ImageData | None) -> InputFormat:
    if data is not None and data.fingerprint() != config.data_sha256:
        raise LiprefError(
            f"{data.name} is not the data set of {path}: give {config.dataset} with limit_train={config.train_images} "
            f"and limit_test={config.test_images}"
        )
    if "input" not in meta and data is None:
        raise LiprefError(f"{path} does not tell classes and mean of {config.dataset}, it is of an earlier lipref: "
                          "pass data=lipref.load_dataset(...), limited as in the run")  # fmt: skip
    given = None if data is None else InputFormat.of(data)
    try:
        stored = InputFormat(**meta["input"]) if "input" in meta else given
    except TypeError:
        raise LiprefError(f"{path}: its 'input' is not one of this lipref: use the one that wrote it") from None
    if given not in (None, stored):
        raise LiprefError(f"{data.name}: mean, classes or shape are not those of {path}: give the run's own data set")
    return stored


def _layer(path: Path, config: RunConfig, layer: str | None) -> LayerSpec:
    own = config.layer_sha256
    if own is None:
        if layer is not None:
            raise LiprefError(f"layer={layer!r}: {path} is a run of the built-in layer {config.layer}: leave layer out")
        return resolve(config.layer)
    if layer is None and config.layer not in LAYERS:
        raise LiprefError(f"{path} is a run of your own layer {config.layer}: give layer='path/to/file.py:Class'")
    spec = resolve(layer or config.layer, own)
    if spec.label != config.layer:
        raise LiprefError(f"layer {layer!r} is not that of {path}, {config.layer}: give that")
    return spec
