"""Other people's code for the same layers, put into the same network, and where it comes from. No part of this library.

A `Foreign` knows how to build its network of one size and layer, and says where its layers mean something else. It is
imported in the process that measures alone (`lipref.bench.worker`), whose ``sys.path`` alone has its path.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module, metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from torch import nn
from torch.nn.utils import parametrize

from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.nets import FirstChannels, convnet


class Foreign:
    """Code that is compared; a subclass for each.

    Attributes: ``name`` in ``--against``; ``url`` where it is published; ``package`` that is imported; ``remedy`` where
    it is missing; ``layers``, our names of the layers that it has, and its own; ``note``, what holds for all of them;
    ``notes``, what single ones do otherwise; ``folds``, whether `fold` gives a network without parametrisation.
    """

    name: str
    url: str
    package: str
    remedy: str
    layers: ClassVar[Mapping[str, str]]
    note: str
    notes: ClassVar[Mapping[str, str]]
    needs_path = False
    folds = False

    def why_not(self, layer: str, size: str, image_size: int) -> str:
        """Why it has no such network, or an empty string where it has."""
        return "" if layer in self.layers else f"it has no {layer}"

    def lacks(self) -> dict[str, str]:
        """Layers that cannot be used here, each with the reason. Called once it can be imported."""
        return {}

    def build(self, layer: str, size: str, image_size: int, channels: int, num_classes: int) -> nn.Module:
        """Its network, on the CPU, with random weights from the global random state."""
        raise NotImplementedError

    def fold(self, model: nn.Module) -> nn.Module:
        """``model``, changed: in evaluation and without parametrisation."""
        raise NotImplementedError

    def check_path(self, path: Path | None) -> None:
        """Refuse a path that is not this code.

        Raises:
            LiprefError: it is missing, or something else.
        """
        if path is None and self.needs_path:
            raise LiprefError(f"--against {self.name}: {self.remedy}")
        if path is not None and not path.exists():
            raise LiprefError(f"--against {self.name}:{path}: there is nothing; {self.remedy}")

    def sha256(self) -> str:
        """Fingerprint of its source: every Python file of its package, also in a wheel."""
        digest = hashlib.sha256()
        for name, text in sources(self.package):
            digest.update(f"{name}\n".encode() + text)
        return digest.hexdigest()


class Authors(Foreign):
    """The code of the paper's authors: github.com/berndprach/1LipschitzLayersCompared."""

    name = "authors"
    url = "https://github.com/berndprach/1LipschitzLayersCompared"
    package = "models"
    needs_path = True
    remedy = "give a checkout of github.com/berndprach/1LipschitzLayersCompared, --against authors:PATH"
    layers: ClassVar = {
        "standard": "StandardConv2d", "aol": "AOLConv2d", "bcop": "BCOP", "cayley": "CayleyConv", "cpl": "CPLConv2d",
        "lot": "LOT", "sll": "SLLConv2d", "soc": "SOC",
    }  # fmt: skip
    notes: ClassVar = {
        "aol": "its kernel is scaled anew at every batch of evaluation",
        "bcop": "the head is its BnB layer, orthogonalised anew at every batch of evaluation",
        "cayley": "the head is its linear layer",
        "soc": "12 terms in evaluation, its kernel scaled anew at every batch",
    }  # fmt: skip
    note = "its own network, with its own layers; it keeps operators in evaluation but for those named here"
    networks: ClassVar = {32: "ConvNet", 64: "TConvNet"}

    def why_not(self, layer: str, size: str, image_size: int) -> str:
        if image_size not in self.networks:
            return f"its networks are for sides {' and '.join(map(str, self.networks))} only"
        return "it has no network of 1x1 kernels" if size.endswith("_1x1") else super().why_not(layer, size, image_size)

    def build(self, layer: str, size: str, image_size: int, channels: int, num_classes: int) -> nn.Module:
        combinations = import_module(f"{self.package}.model_layer_combinations")
        model = combinations.get_model(self.networks[image_size] + size, self.layers[layer])
        if hasattr(model, "FirstChannels"):  # its networks have 10 outputs
            model.FirstChannels = FirstChannels(num_classes)
        return model

    def check_path(self, path: Path | None) -> None:
        super().check_path(path)
        if not (path / self.package / "model_layer_combinations.py").is_file():
            raise LiprefError(f"--against {self.name}:{path}: no checkout of the authors' code; {self.remedy}")


class Orthogonium(Foreign):
    """The package orthogonium (github.com/deel-ai/orthogonium), whose layers stand in our network."""

    name = "orthogonium"
    url = "https://github.com/deel-ai/orthogonium"
    package = "orthogonium"
    folds = True
    remedy = "install the extra bench: pip install 'lipref[bench]', or give its wheel, --against orthogonium:PATH"
    layers: ClassVar = {
        "aol": "AOLConv2D", "bcop": "AdaptiveOrthoConv2d", "cayley": "legacy Cayley",
        "sll": "SDPBasedLipschitzResBlock", "soc": "AdaptiveSOCConv2d",
    }  # fmt: skip
    notes: ClassVar = {
        "aol": "its rescaling has a learned vector more",
        "bcop": "AOC: the frames are multiplied in parallel, 12 Björck steps; 1x1 layers are orthogonalised",
        "cayley": "from its legacy folder",
        "sll": "its rescaling's vector is exponentiated",
        "soc": "one explicit 7x7 kernel, the series cut after 3 terms, scaled as AOL; 1x1 layers are orthogonalised",
    }  # fmt: skip

    note = "its layers in our network: stride 1, bias, padding as ours; in evaluation every batch prepares all kernels"

    def lacks(self) -> dict[str, str]:
        why = "its legacy layers need einops: install the extra bench: pip install 'lipref[bench]'"
        return {} if find_spec("einops") else {"cayley": why}

    def build(self, layer: str, size: str, image_size: int, channels: int, num_classes: int) -> nn.Module:
        spec = LayerSpec(f"{self.name} {layer}", _MAKERS[layer])
        return convnet(size, spec, num_classes, channels, image_size)

    def fold(self, model: nn.Module) -> nn.Module:
        for name, module in list(model.eval().named_modules()):
            if "parametrizations" not in name.split(".") and parametrize.is_parametrized(module):
                for tensor in list(module.parametrizations):
                    parametrize.remove_parametrizations(module, tensor, leave_parametrized=True)
        return model


def _aol(channels: int, out: int, kernel_size: int) -> nn.Module:
    layer = import_module("orthogonium.layers.conv.AOL").AOLConv2D
    return layer(channels, out, kernel_size, padding=kernel_size // 2, padding_mode="circular")


def _bcop(channels: int, out: int, kernel_size: int) -> nn.Module:
    return import_module("orthogonium.layers.conv.AOC").AdaptiveOrthoConv2d(channels, out, kernel_size)


def _cayley(channels: int, out: int, kernel_size: int) -> nn.Module:
    return import_module("orthogonium.legacy.cayley_ortho_conv").Cayley(channels, out, kernel_size)


def _sll(channels: int, out: int, kernel_size: int) -> nn.Module:
    return import_module("orthogonium.layers.conv.SLL").SDPBasedLipschitzResBlock(channels, 1, kernel_size)


def _soc(channels: int, out: int, kernel_size: int) -> nn.Module:
    layer = import_module("orthogonium.layers.conv.adaptiveSOC").AdaptiveSOCConv2d
    return layer(channels, out, kernel_size, padding_mode="zeros")


_MAKERS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "aol": _aol, "bcop": _bcop, "cayley": _cayley, "sll": _sll, "soc": _soc,
}  # fmt: skip
CODES: dict[str, Foreign] = {code.name: code for code in (Authors(), Orthogonium())}


def parse(text: str) -> tuple[Foreign, Path | None]:
    """``NAME`` or ``NAME:PATH`` of ``--against``.

    Raises:
        LiprefError: an unknown name, or a path that is not that code.
    """
    name, _, place = text.partition(":")
    if name not in CODES:
        raise LiprefError(f"--against {text!r}: unknown code; known: {', '.join(CODES)}")
    path = Path(place).expanduser().resolve() if place else None
    CODES[name].check_path(path)
    return CODES[name], path


def sources(package: str) -> Iterator[tuple[str, bytes]]:
    """Name, below the package's folder, and text of its Python files, in a fixed order."""
    return _sources(files(package), "")


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _sources(entry, f"{name}/")
        elif name.endswith(".py"):
            yield name, entry.read_bytes()


def origin(code: Foreign) -> dict:
    """Of ``code`` as it is imported here, without the name of any folder of this machine.

    Returns:
        ``name``, ``url``, ``package``, ``sha256`` of its Python files; ``version``, None where it is not installed;
        ``commit`` and ``dirty``, None where it does not lie in the top folder of a git checkout. Dirty: the package's
        Python files are not those of the commit; whatever else lies in the checkout does not count.
    """
    found = {"name": code.name, "url": code.url, "package": code.package, "sha256": code.sha256()}
    return found | {"version": _version(code.package)} | _commit(code.package)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(package: str) -> dict:
    folder = files(package)
    unknown = {"commit": None, "dirty": None}
    if not isinstance(folder, Path):  # in a wheel
        return unknown
    top = folder.parent.resolve()
    said = _git(top, "rev-parse", "--show-toplevel")
    if said is None or Path(said.strip()).resolve() != top:  # installed below a repository, it is no part of it
        return unknown
    commit, listed = _git(top, "rev-parse", "--verify", "HEAD"), _git(top, "ls-tree", "-rz", "HEAD", "--", package)
    if commit is None or listed is None:
        return unknown
    entries = [entry.split("\t", 1) for entry in listed.split("\0") if entry.endswith(".py")]
    kept = {name: described.split()[2] for described, name in entries}
    here = {f"{package}/{name}": _blob(text) for name, text in sources(package)}
    return {"commit": commit.strip(), "dirty": kept != here}


def _blob(text: bytes) -> str:
    return hashlib.sha1(f"blob {len(text)}\0".encode() + text, usedforsecurity=False).hexdigest()


def _git(folder: Path, *arguments: str) -> str | None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
