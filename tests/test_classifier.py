"""Saved networks as certified classifiers: the same numbers as certification, and nothing else than what was saved."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from PIL import Image
from safetensors import safe_open
from tiny_runs import CPU, EXAMPLE, tiny
from typer.testing import CliRunner

import lipref
from lipref import tensor_files
from lipref.certification import certificate as certificates
from lipref.certification.bounds import network_bound
from lipref.certification.certify import RADII
from lipref.certification.float_error import evaluation_error
from lipref.cli import main
from lipref.data import Split, pixels
from lipref.errors import LiprefError
from lipref.layers import resolve
from lipref.nets import convnet
from lipref.paths import ROOT
from lipref.runs import experiment


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two runs, and the data set: a run of ``aol``, and one of a layer of one's own."""
    root = tmp_path_factory.mktemp("runs")
    folders = {}
    for name, layer in (("aol", "aol"), ("own", EXAMPLE)):
        config, data, spec = tiny(layer)
        experiment.execute(config, data, spec, root, device=CPU)
        folders[name] = root / config.folder
    return folders, data


@pytest.fixture(scope="module")
def classifier(runs):
    return lipref.load(runs[0]["aol"])


@pytest.fixture(scope="module")
def certificate(classifier, runs):
    return certificates.make(classifier, runs[1].test, "test", runs[1])


@pytest.fixture
def copied(runs, tmp_path):
    return shutil.copytree(runs[0]["aol"], tmp_path / "run")


def refused(match, function, *arguments, **options):
    with pytest.raises(LiprefError, match=match) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)


def saved_again(path, change):
    """The file with its tensors and metadata changed, and a right SHA-256."""
    tensors, meta = tensor_files.load(path)
    change(tensors, meta)
    tensor_files.save(path, tensors, meta)


def test_import_stays_light():
    code = "import sys, lipref; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_predict_gives_the_radii_of_certification(classifier, runs):
    data = runs[1]
    frame = classifier.predict(data.test.images, batch_size=20)
    assert list(frame.columns) == ["class", "index", "radius", "margin"]
    index = torch.tensor(frame["index"].to_numpy())
    with torch.no_grad():
        x = next(pixels(data.test, data, CPU, torch.float64, 50))[0]
        expected = classifier.model.double()(x)
    classifier.model.float()
    assert torch.equal(index, expected.argmax(1))
    assert frame["class"].tolist() == [data.classes[i] for i in index]
    top = expected.topk(2).values
    np.testing.assert_allclose(frame["margin"], top[:, 0] - top[:, 1], rtol=1e-9)

    from lipref.certification.certify import certify

    error = evaluation_error(classifier.model, classifier.audit)
    batches = pixels(data.test, data, CPU, torch.float64, 20)
    radii = certify(classifier.model, batches, classifier.bound, error if error.slope is not None else None).radii
    right = (index == data.test.labels).numpy()
    assert right.any()
    np.testing.assert_allclose(frame["radius"][right], radii[right], rtol=1e-12)
    assert (frame["radius"][right].to_numpy() < radii[right].numpy()).all()
    assert (frame["radius"] > 0).all()
    assert (frame["radius"] < frame["margin"] / 2**0.5 / classifier.bound).all()


def test_predict_does_not_depend_on_a_changed_model(runs):
    fresh, images = lipref.load(runs[0]["aol"] / "record.json"), runs[1].test.images
    before = fresh.predict(images)
    with torch.no_grad():
        for parameter in fresh.model.parameters():
            parameter.zero_()
    pd.testing.assert_frame_equal(fresh.predict(images), before)


def test_every_form_of_the_same_pictures(classifier, runs, tmp_path):
    images = runs[1].test.images[:4]
    expected = classifier.predict(images)
    for i, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{i}.png")
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for same in (images.numpy(), images[:, 0], images.permute(0, 2, 3, 1), images.numpy()[::-1][::-1], files, tmp_path):
        found = classifier.predict(same)
        pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True))
    assert list(found.index) == [str(file) for file in files]
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.warns(UserWarning, match=r"left out 1 file.*1 \.txt"):
        assert list(classifier.predict(tmp_path).index) == [str(file) for file in files]


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (torch.zeros(1, 1, 8, 8), "float32.*uint8"),
        (np.zeros((1, 8, 8)), "float64.*uint8"),
        (torch.zeros(1, 8, 8, dtype=torch.int64), "int64.*uint8"),
        (torch.zeros(1, 1, 9, 9, dtype=torch.uint8), "9x9.*8x8.*resize"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "shape"),
        (torch.zeros(8, 8, dtype=torch.uint8), "shape"),
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), "no pictures"),
        (torch.full((1, 1, 8, 8), 17, dtype=torch.uint8), "17.*0 to 16"),
        ([], "no pictures"),
        ([[0]], "list"),
        ("nowhere.png", "nowhere.png"),
    ],
)
def test_predict_refuses(classifier, images, match):
    refused(match, classifier.predict, images)


def test_resized_only_when_asked_and_said(classifier, runs):
    images = runs[1].test.images[:3]
    large = torch.full((3, 1, 16, 16), 3, dtype=torch.uint8) * torch.arange(1, 4, dtype=torch.uint8).view(3, 1, 1, 1)
    found = classifier.predict(large, resize=True)
    assert found.attrs["resized"]
    pd.testing.assert_frame_equal(found, classifier.predict(large[:, :, ::2, ::2]))  # of one colour at any size
    assert not classifier.predict(images, resize=True).attrs["resized"]
    refused("8x16", classifier.predict, torch.zeros(1, 1, 16, 8, dtype=torch.uint8), resize=True)


def test_ties_have_no_radius(copied, runs):
    def constant(tensors, meta):
        for name, tensor in tensors.items():
            if name == "head.bias":
                tensor.zero_()
            if name == "head.weight":
                tensor.zero_()

    saved_again(copied / "weights.safetensors", constant)
    frame = lipref.load(copied).predict(runs[1].test.images[:3])
    assert (frame["margin"] == 0).all()
    assert (frame["radius"] == 0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(copied, value):
    saved_again(copied / "weights.safetensors", lambda tensors, meta: tensors["head.bias"].fill_(value))
    refused("head.bias is not finite", lipref.load, copied)


def test_weights_of_another_network(copied, tmp_path):
    weights = copied / "weights.safetensors"
    original = weights.read_bytes()
    for change in (
        lambda tensors, meta: tensors.pop("head.bias"),
        lambda tensors, meta: tensors.update(other=torch.zeros(1)),
        lambda tensors, meta: tensors.update({"head.bias": tensors["head.bias"].double()}),
        lambda tensors, meta: meta["config"].update(layer="soc"),
    ):
        weights.write_bytes(original)
        saved_again(weights, change)
        refused("is not that of", lipref.load, copied)
    saved_again(weights, lambda tensors, meta: meta.pop("config"))
    refused("weights of a run", lipref.load, copied)
    refused("holds no weights", lipref.load, tmp_path)


def test_weights_that_do_not_tell_their_input(copied, runs, classifier):
    images = runs[1].test.images
    saved_again(copied / "weights.safetensors", lambda tensors, meta: meta.pop("input"))
    refused("pass data=", lipref.load, copied)
    again = lipref.load(copied, data=runs[1])
    pd.testing.assert_frame_equal(again.predict(images), classifier.predict(images))
    refused("limit_train=200", lipref.load, copied, data=lipref.data.load_dataset("digits"))


def test_a_layer_of_ones_own(runs, tmp_path):
    folder = runs[0]["own"]
    assert lipref.load(folder, layer=EXAMPLE).bound is not None
    refused("layer='path/to/file.py:Class'", lipref.load, folder)
    other = tmp_path / "my_layer.py"
    other.write_text("raise SystemExit('executed')")
    refused("SHA-256", lipref.load, folder, layer=f"{other}:MyConv")
    refused("leave layer out", lipref.load, runs[0]["aol"], layer=EXAMPLE)


def test_without_a_bound_nothing_is_certified(classifier, runs, monkeypatch, tmp_path):
    unproved = lipref.load(runs[0]["own"], layer=EXAMPLE)
    monkeypatch.delattr(type(unproved.model.head), "lipschitz_bound")
    assert unproved.bound is None
    frame = unproved.predict(runs[1].test.images)
    assert (frame["radius"] == 0).all()
    assert (frame["margin"] > 0).any()
    certificate = certificates.make(unproved, runs[1].test, "test")
    certificates.write(tmp_path / "c.safetensors", certificate)
    assert "Nothing is proved" in certificates.read(tmp_path / "c.safetensors").statement
    assert certificates.table(certificate)["count"][1:].eq(0).all()


def test_a_certificate_comes_back_as_it_was(certificate, runs, tmp_path):
    path = tmp_path / "certificate.safetensors"
    certificates.write(path, certificate)
    again = certificates.read(path, runs[0]["aol"])
    for name, value in vars(certificate).items():
        same = getattr(again, name)
        assert torch.equal(same, value) if isinstance(value, torch.Tensor) else same == value, name
    record = json.loads((runs[0]["aol"] / "record.json").read_text())
    table = certificates.table(again)
    wanted = [record["certificate"]["accuracy"], *record["certificate"]["cra"].values()]
    assert len(table) == 1 + len(RADII)
    assert table["count"].tolist() == [share["count"] for share in wanted]
    assert table["low"].tolist() == [share["low"] for share in wanted]
    refused("other weights", certificates.read, path, runs[0]["own"])


def test_damaged_certificates(certificate, runs, tmp_path):
    path = tmp_path / "certificate.safetensors"
    certificates.write(path, certificate)
    whole = path.read_bytes()
    for place in (3, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(str(path), certificates.read, path)
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused("empty|damaged", certificates.read, path)
    path.write_bytes(whole)
    with safe_open(path, "pt") as file:
        labels = file.metadata()
    labels["meta"] = labels["meta"].replace('"rounding"', '"Rounding"')
    tensors, _ = tensor_files.load(path)
    path.write_bytes(safetensors.torch.save(tensors, labels))
    refused("SHA-256", certificates.read, path)
    refused("not a certificate", certificates.read, runs[0]["aol"] / "weights.safetensors")
    refused("no such", certificates.read, tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, meta: tensors["radii"].mul_(1.01),
        lambda tensors, meta: tensors["radii"].sub_(1),
        lambda tensors, meta: tensors.update(radii=tensors["radii"].float()),
        lambda tensors, meta: tensors["predictions"].add_(1),
        lambda tensors, meta: tensors.update(labels=tensors["labels"][1:]),
        lambda tensors, meta: tensors["margins"].fill_(float("nan")),
        lambda tensors, meta: meta.update(bound=2 * meta["bound"]),
        lambda tensors, meta: meta.update(bound=0.5 * meta["bound"]),
        lambda tensors, meta: meta.update(bound=None),
        lambda tensors, meta: meta["layers"][0].__setitem__(3, 2 * meta["layers"][0][3]),
        lambda tensors, meta: meta["layers"][0].__setitem__(3, 0.5 * meta["layers"][0][3]),
        lambda tensors, meta: meta["layers"][0].__setitem__(3, None),
        lambda tensors, meta: meta.update(layers=[]),
        lambda tensors, meta: meta.update(unproved=["head"]),
        lambda tensors, meta: meta.update(trusted=["head (My)"]),
        lambda tensors, meta: meta.update(rounding=not meta["rounding"]),
        lambda tensors, meta: tensors["labels"].sub_(10),
        lambda tensors, meta: meta.update(statement="It is safe."),
    ],
)
def test_edited_certificates_contradict_themselves(certificate, tmp_path, change):
    path = tmp_path / "certificate.safetensors"
    certificates.write(path, certificate)
    saved_again(path, change)
    refused("contradicts itself", certificates.read, path)


WRONG = [
    None, True, 7, -1, 0.5, float(2**60), "text", [], [1], ["text"], [[]], [[1, 2, 3, 4]], {}, {"images": 50}, 10**400,
]  # fmt: skip


def fields(certificate, path):
    certificates.write(path, certificate)
    return tensor_files.load(path)


def test_fields_of_wrong_types_are_refused(certificate, tmp_path):
    path = tmp_path / "certificate.safetensors"
    tensors, meta = fields(certificate, path)
    for name, right in meta.items():
        for wrong in WRONG:
            free = {"environment": dict, "weights_sha256": str, "lipref": str}.get(name)
            if wrong == right or (free is not None and isinstance(wrong, free)):
                continue
            tensor_files.save(path, tensors, meta | {name: wrong})
            refused("contradicts itself|not a certificate", certificates.read, path)
        tensor_files.save(path, tensors, {other: value for other, value in meta.items() if other != name})
        refused("not a certificate", certificates.read, path)
    tensor_files.save(path, tensors, meta)
    certificates.read(path)


@pytest.mark.parametrize("place", ["dataset", "split", "sha256", "images"])
def test_data_of_wrong_types_are_refused(certificate, tmp_path, place):
    path = tmp_path / "certificate.safetensors"
    tensors, meta = fields(certificate, path)
    data = meta["data"]
    for wrong in WRONG:
        if not isinstance(wrong, str) or place == "images":
            tensor_files.save(path, tensors, meta | {"data": data | {place: wrong}})
            refused("contradicts itself", certificates.read, path)
    tensor_files.save(path, tensors, meta | {"data": {name: data[name] for name in data if name != place}})
    refused("contradicts itself", certificates.read, path)


@pytest.mark.parametrize("place", range(4))
def test_layers_of_wrong_types_are_refused(certificate, tmp_path, place):
    path = tmp_path / "certificate.safetensors"
    tensors, meta = fields(certificate, path)
    for wrong in WRONG:
        if not isinstance(wrong, str) or place > 1:
            row = list(meta["layers"][0])
            row[place] = wrong
            tensor_files.save(path, tensors, meta | {"layers": [row, *meta["layers"][1:]]})
            refused("contradicts itself", certificates.read, path)


@pytest.mark.parametrize("name", ["radii", "margins", "predictions", "labels"])
def test_tensors_of_wrong_types_are_refused(certificate, tmp_path, name):
    path = tmp_path / "certificate.safetensors"
    tensors, meta = fields(certificate, path)
    for wrong in (tensors[name].bool(), tensors[name][None], tensors[name][:0], torch.tensor(1.0)):
        tensor_files.save(path, tensors | {name: wrong}, meta)
        refused("contradicts itself", certificates.read, path)
    values = tensors.pop(name)
    tensor_files.save(path, tensors, meta)
    refused("not a certificate", certificates.read, path)
    tensor_files.save(path, tensors, meta | {name: values.tolist()})
    refused("contradicts itself", certificates.read, path)


def test_a_certificate_is_bound_to_the_function_not_to_the_bytes(certificate, runs, copied, tmp_path):
    path, weights = tmp_path / "certificate.safetensors", copied / "weights.safetensors"
    certificates.write(path, certificate)
    tensors, meta = tensor_files.load(weights)
    other_order = {name: meta[name] for name in reversed(meta)} | {"note": "of a rerun"}
    tensor_files.save(weights, tensors, other_order)
    assert weights.read_bytes() != (runs[0]["aol"] / "weights.safetensors").read_bytes()
    assert certificates.read(path, copied).weights_sha256 == lipref.load(copied).sha256
    for change in (
        lambda tensors, meta: tensors["head.bias"][:1].add_(1),
        lambda tensors, meta: tensors.update({"head.bias": tensors["head.bias"].double()}),
        lambda tensors, meta: tensors.update({"head.bias": tensors["head.bias"][None]}),
        lambda tensors, meta: meta["config"].update(layer="cpl"),
        lambda tensors, meta: meta["config"].update(size="S"),
        lambda tensors, meta: meta["config"].update(layer_sha256="0" * 64),
        lambda tensors, meta: meta["input"].update(levels=15),
        lambda tensors, meta: meta["input"].update(mean=[0.5]),
        lambda tensors, meta: meta["input"]["classes"].reverse(),
    ):
        tensor_files.save(weights, tensors, meta)
        saved_again(weights, change)
        refused("other weights", certificates.read, path, copied)


def test_a_certificate_of_weights_that_do_not_tell_their_input(copied, runs, certificate, tmp_path):
    path = tmp_path / "certificate.safetensors"
    certificates.write(path, certificate)
    saved_again(copied / "weights.safetensors", lambda tensors, meta: meta.pop("input"))
    refused("pass data=", certificates.read, path, copied)
    certificates.read(path, copied, runs[1])


def test_certificates_bound_to_the_bytes_of_the_weights_are_still_read(certificate, copied, tmp_path):
    """As lipref wrote them before: no ``trusted``, format 1, the SHA-256 of the file."""
    path, weights = tmp_path / "certificate.safetensors", copied / "weights.safetensors"
    tensors, meta = fields(certificate, path)
    del meta["trusted"]
    meta |= {"certificate": 1, "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    tensor_files.save(path, tensors, meta)
    old = certificates.read(path, copied)
    certificates.write(path, old)
    assert vars(certificates.read(path, copied)).keys() == vars(old).keys()
    saved_again(weights, lambda tensors, meta: meta.update(note="other bytes"))
    refused("other weights", certificates.read, path, copied)


def test_the_weights_and_their_sha256_are_of_one_reading(copied, runs, monkeypatch):
    """The file is exchanged right before its tensors are read."""
    other = shutil.copytree(copied, copied.parent / "other")
    saved_again(other / "weights.safetensors", lambda tensors, meta: tensors["head.bias"].add_(1))
    expected, link, load = lipref.load(other), copied.parent / "link.safetensors", tensor_files.load

    def exchanged(path):
        link.unlink()
        link.symlink_to(other / "weights.safetensors")
        return load(path)

    link.symlink_to(copied / "weights.safetensors")
    monkeypatch.setattr(tensor_files, "load", exchanged)
    found = lipref.load(link)
    assert torch.equal(found.model.head.bias, expected.model.head.bias)
    assert found.sha256 == expected.sha256


def test_the_data_of_a_certificate_are_those_that_were_given(classifier, certificate, runs):
    data = runs[1]
    half = data.test.take(torch.arange(25))
    relabelled = Split(data.test.images, data.test.labels.flip(0))
    made = {
        "test": (data.test, "test", data), "train": (data.train, "train", data), "half": (half, "test", data),
        "relabelled": (relabelled, "test", data), "misnamed": (data.train, "test", data),
        "unknown": (data.test, "test", None), "of another": (data.test, "test", lipref.data.load_dataset("digits")),
    }  # fmt: skip
    found = {name: certificates.make(classifier, *arguments).data for name, arguments in made.items()}
    assert {name for name, about in found.items() if about["dataset"] == "digits"} == {"test", "train"}
    assert all(found[name]["dataset"] == "other pictures" for name in found.keys() - {"test", "train"})
    assert len({about["sha256"] for about in found.values()}) == 4
    assert found["test"] == certificate.data
    assert found["test"]["sha256"] == found["unknown"]["sha256"] == found["of another"]["sha256"]


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 10]), "labels from 0 to 10"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([-1, 0]), "labels from -1 to 0"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2]), "labels are torch.int64"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([[0], [1]]), "labels are torch.int64"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0.0, 1.0]), "labels are torch.float32"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), "pixels are torch.float32"),
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "pixels are"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), "shape"),
    ],
)
def test_pictures_and_labels_that_do_not_fit_are_refused(classifier, images, labels, match):
    refused(match, classifier.certify, [(images, labels)])


def test_a_statement_names_the_layers_whose_bound_is_taken_at_its_authors_word(runs, tmp_path):
    own, path = lipref.load(runs[0]["own"], layer=EXAMPLE), tmp_path / "certificate.safetensors"
    certificate = certificates.make(own, runs[1].test, "test", runs[1])
    assert "head (MyConv)" in certificate.trusted
    assert len(certificate.trusted) == len(certificate.layers)
    for named in ("given the bounds that the authors of first (MyConv), ", "head (MyConv) state, so that"):
        assert named in certificate.statement
    certificates.write(path, certificate)
    assert certificates.read(path).trusted == certificate.trusted
    saved_again(path, lambda tensors, meta: meta.update(trusted=[]))
    refused("statement", certificates.read, path)
    out = tmp_path / "shown.safetensors"
    assert "given the bounds" in " ".join(invoked("certify", runs[0]["own"], "--layer", EXAMPLE, "--out", out).split())
    assert "given the bounds" in " ".join(invoked("audit", runs[0]["own"], "--layer", EXAMPLE).split())
    image = tmp_path / "digit.png"
    Image.fromarray(runs[1].test.images[0, 0].numpy()).save(image)
    shown = invoked("predict", runs[0]["own"], image, "--layer", EXAMPLE)
    assert "given the bounds" in " ".join(shown.split())


def test_a_librarys_own_bound_needs_no_ones_word(certificate):
    assert certificate.trusted == []
    assert "given" not in certificate.statement
    four = resolve(f"{ROOT / 'examples' / 'soc4.py'}:SOC4").cls
    assert network_bound(convnet("XS", four, image_size=8)).trusted == []


@pytest.mark.parametrize("default", [torch.float64, torch.float16])
def test_the_default_dtype_does_not_matter(runs, classifier, default):
    images, own = runs[1].test.images[:5], lipref.load(runs[0]["own"], layer=EXAMPLE)
    torch.set_default_dtype(default)
    try:
        again, other = lipref.load(runs[0]["aol"]), lipref.load(runs[0]["own"], layer=EXAMPLE)
        assert torch.get_default_dtype() == default
        for found, expected in ((again, classifier), (other, own)):
            assert {p.dtype for p in found.model.parameters()} == {torch.float32}
            pd.testing.assert_frame_equal(found.predict(images), expected.predict(images))
    finally:
        torch.set_default_dtype(torch.float32)


def test_weights_in_float64_are_loaded(copied, runs, classifier):
    def double(tensors, meta):
        tensors.update({name: value.double() for name, value in tensors.items() if value.is_floating_point()})

    saved_again(copied / "weights.safetensors", double)
    found = lipref.load(copied).predict(runs[1].test.images)
    pd.testing.assert_frame_equal(found, classifier.predict(runs[1].test.images))


def test_numpys_whole_numbers_will_do(classifier, runs):
    images = runs[1].test.images[:7]
    pd.testing.assert_frame_equal(classifier.predict(images, np.int64(3)), classifier.predict(images, 3))
    for wrong in (True, 0, 2.0, "3", None):
        refused("batch_size", classifier.predict, images, wrong)


def invoked(*arguments):
    done = CliRunner(env={"COLUMNS": "200"}).invoke(main.app, list(map(str, arguments)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0
    return done.stdout


def test_the_commands(copied, runs, certificate, tmp_path):
    shown = invoked("certify", copied)
    found = certificates.read(copied / "certificate.safetensors", copied)
    assert torch.allclose(found.radii, certificate.radii, rtol=1e-9)
    assert "36/255" in shown
    assert f"{int((found.margins > 0).sum())} of 50" in shown
    assert "in float32 the logits" in shown
    shown = invoked("audit", copied)
    assert repr(found.bound) in shown
    assert "block0_conv0" in shown
    shown = invoked("certify", copied, "--tta", "flip", "--pairs")
    assert "over mirror images" in shown
    assert "each pair of logits" in shown
    refused("shift", invoked, "certify", copied, "--tta", "shift")
    image = tmp_path / "digit.png"
    Image.fromarray(runs[1].test.images[0, 0].numpy()).save(image)
    shown = invoked("predict", copied, image, "--csv", tmp_path / "out.csv")
    assert "digit.png" in shown
    written = pd.read_csv(tmp_path / "out.csv")
    assert written["index"].tolist() == found.predictions[:1].tolist()
    refused("weights themselves", invoked, "certify", copied, "--out", copied / "weights.safetensors")
    refused("nowhere", invoked, "audit", tmp_path / "nowhere")


def test_certify_wants_the_pictures_of_the_run(copied):
    saved_again(copied / "weights.safetensors", lambda tensors, meta: meta["config"].update(data_sha256="0" * 64))
    refused("other pictures", invoked, "certify", copied)
    saved_again(copied / "weights.safetensors", lambda tensors, meta: meta["config"].update(dataset="mine"))
    refused("--dataset imagefolder:PATH", invoked, "certify", copied)
    refused("digits has", invoked, "certify", resaved(copied, train_images=9999, dataset="digits"))


def resaved(run, **changes):
    saved_again(run / "weights.safetensors", lambda tensors, meta: meta["config"].update(changes))
    return run
