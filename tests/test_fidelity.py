"""Whether ours train as the authors' runs did: values at the same share of the epochs, and what is said of them."""

import json

import numpy as np
import pandas as pd
import pytest

from lipref.paper import authors_runs, fidelity
from lipref.paths import RESULTS
from lipref.runs import present

EPOCHS = 10
THEIRS = authors_runs.curves([])
LAST = THEIRS[(THEIRS.layer == "soc") & (THEIRS["size"] == "XS")]


def theirs_at(column, share, layer="soc", size="XS"):
    """The value of the only finished run at a place, in percent."""
    runs = THEIRS[(THEIRS.layer == layer) & (THEIRS["size"] == size)]
    (run,) = [run for _, run in runs.groupby("run") if run.train_loss.notna().all()]
    return 100 * np.interp(share, run.share, run[column])


def ours(points, seeds=(0,), layer="soc", size="XS", epochs=EPOCHS):
    """Runs that lie ``points`` above the authors' at every share of their epochs, the more so the larger the seed."""
    rows = []
    for seed in seeds:
        for epoch in range(1, epochs + 1):
            at = {
                name: (theirs_at(name, epoch / epochs, layer, size) + points + seed) / 100
                for name in authors_runs.CURVES[2:]
            }
            if epoch < epochs:
                at |= {"test_accuracy": np.nan, "test_cra_36_255": np.nan}
            rows.append(
                {"source": "ours", "layer": layer, "size": size, "run": f"{epochs}-{seed}", "epoch": epoch,
                 "epochs_total": epochs, "share": epoch / epochs, "train_loss": 0.1, "test_loss": np.nan} | at
            )  # fmt: skip
    return pd.DataFrame(rows)


def judged(*runs):
    found = fidelity.differences(fidelity.at_shares(pd.concat([THEIRS, *runs], ignore_index=True), (0.5, 1.0)))
    return found, found[found.verdict != "not run"]


@pytest.mark.parametrize(("points", "verdict"), [(0.0, "agrees"), (1.4, "agrees"), (1.7, "differs"), (-1.7, "differs")])
def test_a_difference_counts_from_one_and_a_half_points_on(points, verdict):
    found, run = judged(ours(points))
    assert len(run) == 6  # two on the way and at the end, and two of the test images
    assert set(run.layer) == {"soc"}
    np.testing.assert_allclose(run.difference, points, atol=1e-9)
    assert set(run.verdict) == {verdict}
    assert set(run.epochs) == {f"{EPOCHS} of {LAST.epochs_total.iloc[0]}"}
    text = fidelity.say(found, "cifar10-jpeg")
    assert f"{6 if verdict == 'agrees' else 0} of 6 values" in text
    assert "cifar10-jpeg" in text
    assert (f"SOC XS: {points:+.1f} points at the most" in text) == (verdict == "differs")
    assert fidelity.people(found).epochs.tolist() == run.epochs.tolist()


def test_seeds_count_with_their_mean_and_the_longest_runs_count():
    _, run = judged(ours(0.0, seeds=(0, 1, 2)), ours(9.0, epochs=4))
    np.testing.assert_allclose(run.difference, 1.0, atol=1e-9)
    np.testing.assert_allclose(run.high - run.low, 2.0, atol=1e-9)
    assert set(run.epochs.str.split().str[0]) == {str(EPOCHS)}


def test_runs_that_ended_early_have_no_value():
    whole = ours(0.0)
    _, cut = judged(whole[whole.epoch < EPOCHS])
    _, lost = judged(whole.assign(train_loss=whole.train_loss.where(whole.epoch < 5)))
    assert cut.empty
    assert lost.empty
    found, _ = judged()
    assert "No run of ours" in fidelity.say(found, "cifar10")
    assert fidelity.people(found).shape == (1, 1)
    paper = fidelity.at_shares(THEIRS)
    assert not paper.duplicated(["layer", "size", "measure"]).any()
    value = paper[(paper.layer == "sll") & (paper["size"] == "S") & (paper.measure.str.startswith("test CRA"))].value
    assert value.item() == pytest.approx(61.98)  # the last of two runs, as in the tables


def test_theirs_are_dotted_beside_ours():
    figure = authors_runs.learning_curves(pd.concat([THEIRS, ours(0.0)], ignore_index=True))
    (axis,) = [axis for axis in figure.axes if axis.get_title(loc="left") == "ours: XS"]
    mine, beside = axis.lines
    assert beside.get_linestyle() == ":"
    np.testing.assert_allclose(mine.get_ydata(), np.interp(mine.get_xdata(), *beside.get_data()))


def test_runs_on_the_pictures_as_jpeg_are_found_without_the_pictures(tmp_path):
    record = json.loads((RESULTS / "cifar10-jpeg-xs" / "records.json").read_text())[0]
    assert present.runs("cifar10-jpeg", say=lambda text: None)[1] == []  # of some of the images only
    record["config"]["train_images"] = 50_000
    (tmp_path / "records.json").write_text(json.dumps([record]))
    table, found = present.runs("cifar10-jpeg", records=str(tmp_path))
    assert len(table) == len(found) == 1
    assert fidelity.say(judged(authors_runs.curves(found))[0], "cifar10-jpeg").count("AOL XS") == 1
