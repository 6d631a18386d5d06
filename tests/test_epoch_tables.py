"""Table 8: every published number, ours by measured steps, parameters one against the other."""

import json

import pandas as pd
import pytest

from lipref.bench import cost
from lipref.layers import LAYERS
from lipref.nets import convnet, count_parameters
from lipref.paper import comparison, table8
from lipref.paths import PAPER, RESULTS


@pytest.fixture(scope="module")
def costs():
    records = json.loads((RESULTS / "digits-xs" / "costs.json").read_text())
    return pd.DataFrame([cost.row(record) for record in records])


def test_every_published_number_is_there(costs):
    table = table8.epochs(costs, "digits", 1437)
    paper = table[table.source == "paper"]
    printed = pd.read_csv(PAPER / "epoch_budgets.csv")
    columns = ["epochs_2h", "epochs_10h", "epochs_24h", "implied_sec_per_epoch", "implied_sec_per_batch",
               "implied_train_img_per_s"]  # fmt: skip
    assert sorted(paper.value.dropna()) == sorted(printed[columns].stack().dropna())
    assert set(paper[paper.value.isna()].note) == {table8.NO_BUDGET}
    line = costs.iloc[0]
    ours = table[(table.source == "ours") & (table.layer == line.layer) & (table["size"] == line["size"])]
    found = ours.set_index("measure").value
    steps = -(-1437 // line.batch_size)
    assert found["epochs in 2 h"] == 7200 // (steps * line.train_seconds)
    reason = table8.unlike(costs, "digits")
    assert "8x8" in reason
    differences = table8.epoch_differences(table, "digits", reason)
    assert set(differences.verdict) == {comparison.NOT_COMPARABLE, comparison.NOT_RUN}
    assert set(table8.unmeasured(table, "digits")) >= {("aol", "XS"), ("soc", "L_1x1")}
    assert ("lot", "L") not in table8.unmeasured(table, "digits")


def test_parameters_differ_where_it_is_known_why():
    table = table8.parameters()
    found = table8.parameter_differences(table)
    assert len(found) == 80
    differs = found[found.verdict == comparison.DIFFERS]
    assert set(differs.layer) == set(table8.WHY)
    assert differs.why.ne("").all()
    assert set(found[found.verdict == comparison.AGREES].layer) == set(LAYERS) - set(table8.WHY)
    ours = table[(table.source == "ours") & (table.layer == "aol") & (table["size"] == "XS")]
    assert ours.value.iloc[0] == count_parameters(convnet("XS", "aol", 10, 3, 32, device="meta"))
