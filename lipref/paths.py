"""Where the repository keeps its own files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAPER = ROOT / "data" / "paper"
RESULTS = ROOT / "data" / "results"
DATASETS = ROOT / "data" / "datasets"
RUNS = ROOT / "data" / "runs"
