"""Runs that take a second, in this process or by the command line."""

import os
import subprocess
import sys

import torch

from lipref.data import load_dataset
from lipref.layers import resolve
from lipref.paths import ROOT
from lipref.runs import experiment
from lipref.training import TrainingConfig

CPU = torch.device("cpu")
TINY = ["--dataset", "digits", "--limit-train", "200", "--limit-test", "50", "--batch-size", "50"]
# Of `lipref reproduce`: training, certification and their table.
TABLE_ONLY = ["--no-measure", "--no-figures"]
EXAMPLE = str(ROOT / "examples" / "my_layer.py") + ":MyConv"


def cli(*arguments, check=True, own=None, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | (own or {})
    done = subprocess.run(
        [sys.executable, "-m", "lipref.cli.main", *map(str, arguments)],
        capture_output=True, text=True, env=environment, cwd=ROOT, check=False, **options,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


def tiny(layer="aol", **settings):
    data = load_dataset("digits", limit_train=200, limit_test=50)
    spec = resolve(layer)
    settings = TrainingConfig(**({"epochs": 1, "learning_rate": 0.05, "batch_size": 50} | settings))
    return experiment.configure(data, spec, "XS", settings, CPU), data, spec


def strip(record):
    """A record without what may differ between two runs of the same configuration."""
    history = [{k: v for k, v in line.items() if k != "seconds"} for line in record["history"]]
    timed = {"train_seconds", "certify_seconds", "environment", "history"}
    return {k: v for k, v in record.items() if k not in timed} | {"history": history}
