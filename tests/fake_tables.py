"""Tables of runs and of measurements with made-up numbers, in the form that `runs.row` and `cost.row` give."""

import math

import pandas as pd

COSTLY = {"standard": 1, "aol": 2, "bcop": 3, "cayley": 5, "cpl": 2.5, "lot": 20, "sll": 2.2, "soc": 6, "MyConv": 1.5}


def runs_table(layers=tuple(COSTLY), sizes=("XS",), seeds=(0,), dataset="digits"):
    rows = []
    for size in sizes:
        for place, layer in enumerate(layers):
            for seed in seeds:
                accuracy, cra = 0.9 + 0.01 * place, 0.7 + 0.02 * place + 0.01 * seed
                row = {"dataset": dataset, "size": size, "layer": layer, "seed": seed, "status": "done",
                       "train_images": 1437, "test_images": 360, "epochs": 20, "batch_size": 64,
                       "learning_rate": 0.1, "hyperparameters": "search",
                       "accuracy": accuracy,
                       "accuracy_low": accuracy - 0.03, "accuracy_high": accuracy + 0.02}  # fmt: skip
                for radius in (36, 72, 108, 255):
                    value = max(0.0, cra - 0.1 * (radius // 36 - 1))
                    row |= {
                        f"cra_{radius}": value,
                        f"cra_{radius}_low": value - 0.05,
                        f"cra_{radius}_high": value + 0.04,
                    }
                rows.append(row)
    return pd.DataFrame(rows)


def costs_table(layers=tuple(COSTLY), sizes=("XS", "S"), folded=True):
    rows = []
    for power, size in enumerate(sizes):
        for layer in layers:
            unit = COSTLY[layer] * 4**power
            row = {"layer": layer, "size": size, "image_size": 8, "channels": 1, "num_classes": 10, "batch_size": 64,
                   "device": "cpu", "machine": "a CPU", "threads": 2, "status": "done", "parameters": 1000,
                   "repeats": 10, "prepare_seconds": 0.01 * unit, "train_peak_bytes": 1e6 * unit,
                   "infer_peak_bytes": 3e5 * unit, "folded_peak_bytes": 2e5 * unit}  # fmt: skip
            for name, value in (("train", 0.1 * unit), ("infer", 0.02 * unit), ("folded", 0.01 * unit)):
                missing = name == "folded" and (not folded or layer == "MyConv")
                value = math.nan if missing else value
                row |= {
                    f"{name}_seconds": value,
                    f"{name}_seconds_low": 0.9 * value,
                    f"{name}_seconds_high": 1.2 * value,
                }
            rows.append(row)
    return pd.DataFrame(rows)


def diverged(runs, layer, seeds=None):
    """The same runs, those of ``layer`` with one of ``seeds`` (all) diverged: without any certified value."""
    runs = runs.copy()
    lost = (runs.layer == layer) & (runs.seed.isin(runs.seed if seeds is None else seeds))
    runs.loc[lost, "status"] = "diverged"
    runs.loc[lost, [name for name in runs.columns if name.startswith(("accuracy", "cra_"))]] = math.nan
    return runs
