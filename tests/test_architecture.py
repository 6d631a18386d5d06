"""Tables 5 to 7: what is read from the modules, and that a wrong network is seen."""

import math

import pytest

from lipref import comparison, nets, plots
from lipref.comparison import AGREES, DIFFERS
from lipref.errors import LiprefError
from lipref.items import architecture


@pytest.fixture(scope="module")
def modules():
    return architecture.modules("XS", "aol")


def test_every_stage_is_the_published_one(modules):
    for found, number in ((architecture.stages(modules), 5), (architecture.block(modules), 6)):
        table = architecture.compare(found, architecture.published_rows(number, 32))
        assert set(table.verdict) == {AGREES}
    tiny = architecture.modules("XS", "standard", 64, 200)
    table = architecture.compare(architecture.stages(tiny), architecture.published_rows(5, 64))
    assert (set(table.verdict), len(table)) == ({AGREES}, 11)


@pytest.mark.parametrize("column", ["repetitions", "kernel", "channels", "side"])
def test_another_network_is_seen(modules, column):
    for found, number in ((architecture.stages(modules), 5), (architecture.block(modules), 6)):
        if (number, column) == (6, "kernel"):
            continue  # the published block leaves it open
        wrong = found.copy()
        wrong.loc[0 if column != "kernel" else 3, column] = 7
        verdicts = architecture.compare(wrong, architecture.published_rows(number, 32)).verdict
        assert list(verdicts).count(DIFFERS) == 1


def test_a_missing_stage_is_seen(modules):
    found = architecture.stages(modules)
    table = architecture.compare(found[:-1], architecture.published_rows(5, 32))
    assert table.verdict.iloc[-1] == comparison.NOT_RUN
    assert set(architecture.compare(found, architecture.published_rows(5, 16)).verdict) == {"not published"}


def test_multiply_accumulates_are_the_formula(modules):
    for found, width in ((modules, 16), (architecture.modules("S", "standard"), 32)):
        expected = sum(c * c * k * k * s * s for c, k, s in convolutions(width))
        assert found.macs.sum() == expected
    assert "191,488 w²" in architecture.say(modules)
    assert architecture.modules("XS_1x1", "standard").macs.sum() < modules.macs.sum() / 5


def convolutions(width):
    """Channels, kernel, side of every layer of the network for 32x32 pictures."""
    yield width, 1, 32
    for block in range(5):
        yield from [(width << block, 3 if block < 4 else 1, 32 >> block)] * 5
    yield 32 * width, 1, 1


def test_blocks_have_numbers(modules):
    last = architecture.block(modules, 4)
    assert last.kernel.iloc[0] == 1
    assert math.isnan(last.kernel.iloc[1])
    with pytest.raises(LiprefError, match="blocks 0 to 4"):
        architecture.block(modules, 5)


@pytest.mark.parametrize("layer", ["standard", "bcop", "cayley", "soc", "sll"])
def test_counts_are_those_of_the_real_network(layer):
    model = nets.convnet("XS", layer, image_size=8)
    assert architecture.count("XS", layer, 8) == (nets.count_parameters(model), nets.count_parameters(model))
    assert all(math.isnan(number) for number in architecture.count("XS", "none of ours", 8))


def test_sizes_agree_but_for_what_is_explained():
    found = architecture.sizes()
    assert len(found) == 8 + 8 + 2 * 80
    differs = found[found.verdict == DIFFERS]
    assert set(differs.layer) == {"bcop", "cayley", "soc"}
    assert set(differs[differs.measure == "trained parameters"].layer) == {"bcop", "cayley"}
    assert (differs.reason != "").all()
    assert (found[found.verdict == AGREES].reason == "").all()
    table = architecture.tidy(found)
    figure = plots.parameters(table)
    assert len(figure.axes) == 4
    for variant, columns in (("published", {"paper"}), ("ours", {"ours"}), ("both", {"paper", "ours", "verdict"})):
        people = architecture.people(found, variant)
        assert columns <= set(people.columns)
        assert not people.isna().any().any()


@pytest.mark.parametrize("variant", comparison.VARIANTS)
def test_variants_show_their_own(modules, variant):
    stages, theirs = architecture.stages(modules), architecture.published_rows(5, 32)
    people = architecture.compare(stages, theirs, variant)
    assert ("paper" in people, "ours" in people) == (variant != "ours", variant != "published")
    assert set(architecture.both(stages, theirs, variant).source) == set(comparison.VARIANTS[variant])
    with pytest.raises(LiprefError, match="theirs"):
        architecture.compare(stages, theirs, "theirs")
