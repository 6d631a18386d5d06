"""The paper's random search: its draws, its winner, and that it goes on after a kill."""

import json
import math
from dataclasses import replace

import pytest
from tiny_runs import CPU, tiny

from lipref.data import Batches
from lipref.runs import experiment, recipes
from lipref.training import search as random_search

NAMES = ("cifar10", "XS", "standard")


def draws(*names, count=16):
    study = random_search.Draws(*names)
    found = []
    for _ in range(count):
        found.append(study.ask())
        study.tell(0.1)
    return found


def test_draws_lie_in_the_ranges_and_fill_them():
    found = [draw for size in ("XS", "S", "M", "L") for draw in draws("cifar10", size, "aol")]
    rates, decays = ([math.log10(value) for value in values] for values in zip(*found, strict=True))
    for values, (low, high) in ((rates, random_search.LOG_RATES), (decays, random_search.LOG_DECAYS)):
        assert all(low <= value <= high for value in values)
        third = (high - low) / 3
        parts = [sum(low + k * third <= value <= low + (k + 1) * third for value in values) for k in range(3)]
        assert min(parts) > 8  # of 64
    assert random_search.RandomSearch().count == 16


def test_the_same_names_give_the_same_draws_and_others_give_others():
    assert draws(*NAMES) == draws(*NAMES)
    others = [("cifar100", "XS", "standard"), ("cifar10", "S", "standard"), ("cifar10", "XS", "aol")]
    assert all(draws(*names)[0] != draws(*NAMES)[0] for names in others)


def test_what_a_draw_found_does_not_change_the_next():
    study = random_search.Draws(*NAMES)
    found = []
    for number in range(16):
        found.append(study.ask())
        study.tell(None if number % 2 else number / 16)
    assert found == draws(*NAMES)
    assert study.study.best_value == 14 / 16


def scored(scores, monkeypatch):
    left = iter(scores)

    def execute(*_, **__):
        found = next(left)
        if found is None:
            return {"status": "diverged"}
        cra, accuracy = ({"value": value} for value in found)
        return {"status": "done", "certificate": {"cra": {"36/255": cra}, "accuracy": accuracy}}

    monkeypatch.setattr(recipes, "execute", execute)


@pytest.mark.parametrize(
    ("scores", "winners"),
    [([(0.2, 0.9), (0.5, 0.7), (0.5, 0.8), None], {2}), ([None, None, (0.0, 0.1), None], {2}),
     ([(0.5, 0.8), None, (0.5, 0.8), (0.5, 0.8)], {0, 2, 3})],
)  # fmt: skip
def test_the_winner(scores, winners, monkeypatch, tmp_path):
    """Highest CRA, then accuracy, then the smaller rate; diverged ones lose."""
    scored(scores, monkeypatch)
    _, data, spec = tiny()
    plan = random_search.RandomSearch(epochs=1, draws=4)
    found = recipes.search(data, spec, "XS", plan, 50, tmp_path, device=CPU)
    there = draws("digits", "XS", "aol", count=4)
    rate, decay = min(there[number] for number in winners)
    assert found == recipes.Recipe(rate, decay, "random search")


def test_a_search_that_was_killed_goes_on_and_finds_the_same(tmp_path, monkeypatch):
    _, data, spec = tiny()
    plan = random_search.RandomSearch(epochs=1, draws=3)
    whole = recipes.search(data, spec, "XS", plan, 50, tmp_path / "whole", device=CPU)
    real, calls = recipes.execute, []

    def dies(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(recipes, "execute", dies)
    with pytest.raises(KeyboardInterrupt):
        recipes.search(data, spec, "XS", plan, 50, tmp_path / "killed", device=CPU)
    (kept,) = (tmp_path / "killed").glob("*/record.json")
    stamp = kept.stat().st_mtime_ns
    monkeypatch.setattr(recipes, "execute", real)
    assert recipes.search(data, spec, "XS", plan, 50, tmp_path / "killed", device=CPU) == whole
    assert kept.stat().st_mtime_ns == stamp
    records = [json.loads(path.read_text()) for path in (tmp_path / "killed").glob("*/record.json")]
    assert {record["notes"]["search"] for record in records} == {"random"}
    assert all(record["config"]["validation"] == recipes.VALIDATION for record in records)
    rates = {record["config"]["settings"]["learning_rate"] for record in records}
    assert rates == {rate for rate, _ in draws("digits", "XS", "aol", count=3)}


def test_validation_images_are_clean_unless_asked_for(tmp_path, monkeypatch):
    """Augmented ones go through the training's own batches; where a data set has no augmentation it is one run."""
    config, data, spec = tiny()
    flipped = replace(data, augmentation="crop-flip")
    settings = config.settings
    made = {augmented: experiment.configure(flipped, spec, "XS", settings, CPU, validation=0.1, augmented=augmented)
            for augmented in (False, True)}  # fmt: skip
    assert made[False].digest != made[True].digest
    assert "augmented" not in made[False].as_dict()
    seen = []

    class Watched(Batches):
        def __init__(self, split, *arguments, **options):
            super().__init__(split, *arguments, **options)
            seen.append((len(split), self.augmentation))

    monkeypatch.setattr(experiment, "Batches", Watched)
    totals = []
    for augmented, config in made.items():
        record = experiment.execute(config, flipped, spec, tmp_path / str(augmented), device=CPU)
        totals.append(record["certificate"]["accuracy"]["total"])
    assert totals == [20, 20]
    assert seen == [(180, "crop-flip"), (180, "crop-flip"), (20, "crop-flip")]
    plain = recipes.search
    found = []
    monkeypatch.setattr(recipes, "configure", lambda *_, **options: found.append(options["augmented"]))
    scored([(0.1, 0.1), (0.1, 0.1)], monkeypatch)
    plan = random_search.RandomSearch(epochs=1, draws=1, augmented=True)
    for each in (data, flipped):
        plain(each, spec, "XS", plan, 50, tmp_path, device=CPU)
    assert found == [False, True]
