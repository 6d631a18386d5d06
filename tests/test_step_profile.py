"""Where the time of a step goes: every operation has one kind, and the kinds add up."""

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from lipref import step_profile
from lipref.cli import app
from lipref.paths import RESULTS


@pytest.mark.parametrize(
    ("operation", "kind"),
    [("aten::mkldnn_convolution", "convolutions"), ("aten::convolution_backward", "convolutions"),
     ("aten::bmm", "products"), ("aten::mm", "products"), ("aten::_linalg_eigh", "factorisations"),
     ("aten::_cholesky_solve_helper", "factorisations"), ("aten::_fft_r2c", "Fourier transforms"),
     ("aten::add_", "rest"), ("_ExchangeBackward", "rest")],
)  # fmt: skip
def test_operations_have_kinds(operation, kind):
    assert step_profile.kind_of(operation) == kind


def test_the_command_writes_what_it_found(tmp_path):
    arguments = ["profile", "--layers", "bcop,cayley", "--size", "XS", "--batch-size", "2", "--steps", "1", "--rounds"]
    found = CliRunner().invoke(app, [*arguments, "2", "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    table = pd.read_csv(tmp_path / "profile.csv")
    assert tuple(table.columns) == step_profile.COLUMNS
    values = table.set_index(["layer", "kind"]).milliseconds
    assert len(values) == 10
    for layer, kind, some in (("bcop", "products", True), ("bcop", "Fourier transforms", False),
                              ("cayley", "Fourier transforms", True), ("cayley", "convolutions", True)):  # fmt: skip
        assert (values[layer, kind] > 0) == some
    assert (table.low <= table.milliseconds).all()
    assert (table.milliseconds <= table.high).all()
    written = json.loads((tmp_path / "profile.json").read_text())
    assert written["layers"] == ["bcop", "cayley"]
    assert "commit" in written["environment"]
    assert CliRunner().invoke(app, [*arguments, "0", "--out", str(tmp_path)]).exit_code != 0


def test_the_committed_profile_is_whole():
    table = pd.read_csv(RESULTS / "profile-cpu" / "profile.csv")
    assert {"standard", "bcop", "cpl", "soc"} <= set(table.layer)
    assert set(table.kind) == {*step_profile.KINDS, step_profile.REST}
