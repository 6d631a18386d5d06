"""Where the time of a step goes: every operation has one kind, and the kinds add up."""

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from lipref.bench import step_profile
from lipref.cli.main import app
from lipref.errors import LiprefError
from lipref.layers import resolve
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


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [("sm90_xmma_dgrad_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128", "convolutions"),
     ("void cudnn::engines_precompiled::nchwtonhwckernel<float>", "convolutions"),
     ("sm80_xmma_gemm_cf32cf32_f32f32_cf32_nn_n_tilesize64x64x8", "products"),
     ("void cutlass::kernel2<cutlass_80_simt_sgemm_256x128_8x4_nn_align1>", "products"),
     ("void getrf_pivot<getrf_params_<float, 256>", "factorisations"),
     ("void kernel_trsm_l_mul32<float, 8>", "factorisations"), ("void regular_fft<32u, ept<8u>>", "Fourier transforms"),
     ("exchange", "rest"), ("void at::native::elementwise_kernel<128, 2>", "rest")],
)  # fmt: skip
def test_kernels_have_kinds(kernel, kind):
    assert step_profile.kind_of(kernel, step_profile.KERNELS) == kind


@pytest.mark.slow
def test_the_command_writes_what_it_found_and_goes_on_from_there(tmp_path, monkeypatch):
    arguments = ["profile", "--layers", "standard,bcop,cayley", "--size", "XS", "--batch-size", "2", "--steps", "1"]
    arguments += ["--out", str(tmp_path), "--rounds"]
    found = CliRunner().invoke(app, [*arguments, "1"])
    assert found.exit_code == 0, found.output
    assert "x standard" in found.output
    first = pd.read_csv(tmp_path / "profile.csv")
    done = []
    profiled = step_profile._profiled
    monkeypatch.setattr(step_profile, "_profiled", lambda *given: done.append(given) or profiled(*given))
    assert CliRunner().invoke(app, [*arguments, "2"]).exit_code == 0
    assert len(done) == 3  # the second round alone
    table = pd.read_csv(tmp_path / "profile.csv")
    assert tuple(table.columns) == step_profile.COLUMNS
    values = table.set_index(["layer", "kind"]).milliseconds
    assert len(values) == 18
    for layer, kind, some in (("bcop", "products", True), ("bcop", "Fourier transforms", False),
                              ("cayley", "Fourier transforms", True), ("cayley", "convolutions", True)):  # fmt: skip
        assert (values[layer, kind] > 0) == some
    assert ((table.low <= first.milliseconds) & (first.milliseconds <= table.high)).all()
    written = json.loads((tmp_path / "profile.json").read_text())
    assert written["layers"] == ["standard", "bcop", "cayley"]
    assert "commit" in written["environment"]
    assert CliRunner().invoke(app, [*arguments, "0"]).exit_code != 0


def test_a_damaged_round_is_refused(tmp_path):
    spec = resolve("standard")
    config = step_profile.configure(spec, "XS", 2, 1)
    for text in ("{", json.dumps({"digest": "other", "rounds": {}})):
        (tmp_path / config.file).write_text(text)
        with pytest.raises(LiprefError, match=config.file):
            step_profile.measure([spec], "XS", 2, 1, 1, out=tmp_path)


def test_whole_steps_are_compared_within_rounds():
    """A machine that halves its speed in the second round changes no ratio."""
    lines = [
        {"round": number, "layer": layer, "kind": kind, "ms": ms * (1 + number)}
        for number in (0, 1)
        for layer, ms in (("standard", 10.0), ("cpl", 25.0))
        for kind in (step_profile.REST, step_profile.WHOLE)
    ]
    whole = step_profile.table(pd.DataFrame(lines)).set_index(["layer", "kind"]).loc[("cpl", step_profile.WHOLE)]
    assert (whole.low, whole.milliseconds, whole.high) == (25, 37.5, 50)
    assert (whole.times_standard_low, whole.times_standard, whole.times_standard_high) == (2.5, 2.5, 2.5)
    alone = step_profile.table(pd.DataFrame([line for line in lines if line["layer"] == "cpl"]))
    assert alone.times_standard.isna().all()
    assert "x standard" not in step_profile.people(_with_all_kinds(alone))


def _with_all_kinds(table):
    more = [table.iloc[:1].assign(kind=kind) for kind in step_profile.KINDS]
    return pd.concat([table, *more])


@pytest.mark.parametrize("name", ["profile-cpu", "profile-cpu-m"])
def test_the_committed_profiles_are_whole(name):
    table = pd.read_csv(RESULTS / name / "profile.csv")
    assert {"standard", "bcop", "cpl", "soc"} <= set(table.layer)
    assert set(table.kind) == {*step_profile.KINDS, step_profile.REST, step_profile.WHOLE}
