"""Tables 5 to 7: what is read from the modules, and that a wrong network is seen."""

import math

import pytest

from lipref import nets
from lipref.errors import LiprefError
from lipref.paper import comparison, cost_figures, table5
from lipref.paper.comparison import AGREES, DIFFERS


@pytest.fixture(scope="module")
def modules():
    return table5.modules("XS", "aol")


def test_every_stage_is_the_published_one(modules):
    for found, number in ((table5.stages(modules), 5), (table5.block(modules), 6)):
        table = table5.compare(found, table5.published_rows(number, 32))
        assert set(table.verdict) == {AGREES}
    tiny = table5.modules("XS", "standard", 64, 200)
    table = table5.compare(table5.stages(tiny), table5.published_rows(5, 64))
    assert (set(table.verdict), len(table)) == ({AGREES}, 11)


@pytest.mark.parametrize("column", ["repetitions", "kernel", "channels", "side"])
def test_another_network_is_seen(modules, column):
    for found, number in ((table5.stages(modules), 5), (table5.block(modules), 6)):
        if (number, column) == (6, "kernel"):
            continue  # the published block leaves it open
        wrong = found.copy()
        wrong.loc[0 if column != "kernel" else 3, column] = 7
        verdicts = table5.compare(wrong, table5.published_rows(number, 32)).verdict
        assert list(verdicts).count(DIFFERS) == 1


def test_a_missing_stage_is_seen(modules):
    found = table5.stages(modules)
    table = table5.compare(found[:-1], table5.published_rows(5, 32))
    assert table.verdict.iloc[-1] == comparison.NOT_RUN
    assert set(table5.compare(found, table5.published_rows(5, 16)).verdict) == {"not published"}


def test_multiply_accumulates_are_the_formula(modules):
    for found, width in ((modules, 16), (table5.modules("S", "standard"), 32)):
        expected = sum(c * c * k * k * s * s for c, k, s in convolutions(width))
        assert found.macs.sum() == expected
    assert "191,488 w²" in table5.say(modules)
    assert table5.modules("XS_1x1", "standard").macs.sum() < modules.macs.sum() / 5


def convolutions(width):
    """Channels, kernel, side of every layer of the network for 32x32 pictures."""
    yield width, 1, 32
    for block in range(5):
        yield from [(width << block, 3 if block < 4 else 1, 32 >> block)] * 5
    yield 32 * width, 1, 1


def test_blocks_have_numbers(modules):
    last = table5.block(modules, 4)
    assert last.kernel.iloc[0] == 1
    assert math.isnan(last.kernel.iloc[1])
    with pytest.raises(LiprefError, match="blocks 0 to 4"):
        table5.block(modules, 5)


@pytest.mark.parametrize("layer", ["standard", "bcop", "cayley", "soc", "sll"])
def test_counts_are_those_of_the_real_network(layer):
    model = nets.convnet("XS", layer, image_size=8)
    assert table5.count("XS", layer, 8) == (nets.count_parameters(model), nets.count_parameters(model))
    assert all(math.isnan(number) for number in table5.count("XS", "none of ours", 8))


def test_sizes_agree_but_for_what_is_explained():
    found = table5.sizes()
    assert len(found) == 8 + 8 + 2 * 80
    differs = found[found.verdict == DIFFERS]
    assert set(differs.layer) == {"bcop", "cayley", "soc"}
    assert set(differs[differs.measure == "trained parameters"].layer) == {"bcop", "cayley"}
    assert (differs.reason != "").all()
    assert (found[found.verdict == AGREES].reason == "").all()
    table = table5.tidy(found)
    figure = cost_figures.parameters(table)
    assert len(figure.axes) == 4
    for variant, columns in (("published", {"paper"}), ("ours", {"ours"}), ("both", {"paper", "ours", "verdict"})):
        people = table5.people(found, variant)
        assert columns <= set(people.columns)
        assert not people.isna().any().any()


@pytest.mark.parametrize("variant", comparison.VARIANTS)
def test_variants_show_their_own(modules, variant):
    stages, theirs = table5.stages(modules), table5.published_rows(5, 32)
    people = table5.compare(stages, theirs, variant)
    assert ("paper" in people, "ours" in people) == (variant != "ours", variant != "published")
    assert set(table5.both(stages, theirs, variant).source) == set(comparison.VARIANTS[variant])
    with pytest.raises(LiprefError, match="theirs"):
        table5.compare(stages, theirs, "theirs")
