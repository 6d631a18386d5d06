"""``lipref certify``, ``audit`` and ``predict``: what a saved network guarantees."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer

from lipref.certification import certificate as certificates
from lipref.certification.certify import TTA, Certificate, radius_name
from lipref.certification.certify import certify as run_certify
from lipref.certification.classifier import CertifiedClassifier, load, read_config
from lipref.certification.pair_bounds import pair_bounds
from lipref.certification.precision import PRECISIONS, deviation
from lipref.cli import display
from lipref.cli import options as o
from lipref.data import DATASETS, ImageData, load_dataset, pixels, validation_split
from lipref.data.datasets import FOLDER_PREFIX
from lipref.errors import LiprefError
from lipref.runs.plans import check_device
from lipref.runs.records import RunConfig
from lipref.tensor_files import replace_file

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or its weights.safetensors.")]
Layer = Annotated[str | None, typer.Option(help="Of a run of your own layer: path/to/file.py:Class.")]


def certify(
    run: Run,
    dataset: Annotated[str | None, typer.Option(help="For a run on an image folder: imagefolder:PATH.")] = None,
    data_root: o.Root = None,
    device: o.Device = "cpu",
    layer: Layer = None,
    out: Annotated[Path | None, typer.Option(help="The certificate's file; default beside the weights.")] = None,
    tta: Annotated[str | None, typer.Option(help="flip: also certify the average over mirror images.")] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Also certify with a constant for each pair of logits.")] = (
        False
    ),
) -> None:
    """Certify a saved network on the pictures that its run was tested on, and write the certificate."""
    if tta not in TTA:
        raise LiprefError(f"--tta {tta!r} is unknown; it can be flip")
    place = check_device(device)
    config = read_config(run)
    data = _data_of(config, dataset, data_root)
    classifier = load(run, data=data, layer=layer, device=place)
    config = classifier.config
    path = classifier.path.with_name(certificates.NAME) if out is None else out
    if path.is_dir() or path.resolve() == classifier.path.resolve():
        raise LiprefError(f"--out {path} is a folder or the weights themselves: give a file's name")
    held_out = validation_split(data, config.validation) if config.validation else data
    certificate = certificates.make(classifier, held_out.test, "validation" if config.validation else "test", data)
    certificates.write(path, certificate)
    frame = certificates.table(certificate)
    shown = pd.DataFrame({
        "radius": frame["radius"].replace("0/255", "0 (accuracy)"),
        "pictures": [f"{row.count_} of {row.images}" for row in frame.rename(columns={"count": "count_"}).itertuples()],
        "share": [f"{100 * share:.1f} %" for share in frame["share"]],
        "95 % interval": [f"{100 * low:.1f} to {100 * high:.1f} %" for low, high in zip(frame["low"], frame["high"],
                                                                                         strict=True)],
    })  # fmt: skip
    name = f"validation, {config.validation:g} of the training pictures" if config.validation else "test"
    display.say(f"{config.layer} {config.size} on {config.dataset}, {name}")
    display.print_table(display.console(), shown)
    batches = partial(pixels, held_out.test, data, place, torch.float64, 250)
    if tta is not None:
        averaged = run_certify(classifier.model, batches(), classifier.bound, classifier.evaluation_error, tta)
        display.say(f"Averaged over mirror images, not in the file: {_shares(averaged)}")
    if pairs:
        constants = pair_bounds(classifier.model, classifier.audit)
        if constants is None:
            display.say("Pairs of logits: the head is not linear, or nothing is proved, so sqrt(2) L is the bound")
        else:
            closer = run_certify(
                classifier.model, batches(), classifier.bound, classifier.evaluation_error, pairs=constants
            )
            display.say(f"With a constant for each pair of logits, not in the file: {_shares(closer)}")
    _say_proved(classifier)
    display.say(certificate.statement)
    for precision in PRECISIONS if place.type == "cuda" else PRECISIONS[:1]:
        rough = deviation(classifier.model, batches(), precision)
        display.say(
            f"Measured, not proved: in {precision} the logits of these pictures are off by at most {rough.largest:.1e} "
            f"(l2), and {rough.changed} of {rough.images} predictions differ."
        )
    display.say(f"Certificate: {path}")


def audit(checkpoint: Run, layer: Layer = None) -> None:
    """Show the Lipschitz bound of every layer of a saved network, and their product."""
    classifier = load(checkpoint, layer=layer)
    rows = [(name, kind, f"{size[0]}x{size[1]}", "not proved" if bound is None else repr(bound))
            for name, kind, size, bound in classifier.audit.layers]  # fmt: skip
    display.print_table(display.console(), pd.DataFrame(rows, columns=["layer", "type", "size", "Lipschitz bound"]))
    if classifier.bound is not None:
        display.say(f"Product, rounded upwards: {classifier.bound!r}{certificates.given(classifier.audit.trusted)}")
    _say_proved(classifier)


def predict(
    run: Run,
    pictures: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Pictures, or folders of pictures.")],
    resize: Annotated[bool, typer.Option("--resize", help="Resize square pictures to the network's side.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file too.")] = None,
    device: o.Device = "cpu",
    layer: Layer = None,
) -> None:
    """Classify pictures, each with the l2 radius within which no perturbation changes its class."""
    classifier = load(run, layer=layer, device=check_device(device))
    console = display.console()
    frame = classifier.predict(pictures, progress=console.is_terminal, resize=resize)
    if csv is not None:
        replace_file(csv, frame.to_csv().encode("utf-8", "surrogateescape"))  # a name as the file system has it
    # A radius is a guarantee: cut off, not rounded.
    radii = [f"{int(radius * 10**4) / 10**4:.4f}" for radius in frame["radius"]]
    shown = pd.DataFrame({"picture": frame.index, "class": frame["class"].to_numpy(), "radius": radii})
    display.print_table(console, shown)
    if frame.attrs["resized"]:
        side = classifier.input.image_size
        display.say(f"Pictures were resized to {side}x{side}: a radius is one for the resized picture.")
    if classifier.bound is not None and (given := certificates.given(classifier.audit.trusted)):
        display.say(f"Radii are certified{given}")
    _say_proved(classifier)
    if csv is not None:
        display.say(f"Table: {csv}")


def _shares(certificate: Certificate) -> str:
    shares = {"accuracy": certificate.accuracy} | {radius_name(r): share for r, share in certificate.cra.items()}
    return ", ".join(f"{name} {100 * share.value:.1f} %" for name, share in shares.items())


def _say_proved(classifier: CertifiedClassifier) -> None:
    if classifier.bound is None:
        display.say(f"not proved: {'; '.join(classifier.audit.unproved)}")


def _data_of(config: RunConfig, dataset: str | None, root: Path | None) -> ImageData:
    """The data set of a run, limited as it was; nothing else will do."""
    name = config.dataset if dataset is None else dataset
    if name not in DATASETS and not name.startswith(FOLDER_PREFIX):
        raise LiprefError(f"the run is on the image folder {name!r}: tell where it is with --dataset imagefolder:PATH")
    called = config.dataset if name.startswith(FOLDER_PREFIX) else None
    whole = load_dataset(name, root, as_name=called)
    if len(whole.train) < config.train_images or len(whole.test) < config.test_images:
        found, wanted = (len(whole.train), len(whole.test)), (config.train_images, config.test_images)
        raise LiprefError(f"{name} has {found} pictures to train and test, the run had {wanted}: give its own data set")
    data = load_dataset(
        name, root, as_name=called, limit_train=config.train_images, limit_test=config.test_images
    )  # fmt: skip
    if data.fingerprint() != config.data_sha256:
        raise LiprefError(f"{name} has other pictures than those of the run (SHA-256): give its own data set")
    return data
