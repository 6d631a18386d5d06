"""Stand-ins for `lipref bench`: a checkout of other people's code, and a worker that measures nothing."""

import torch

from lipref.bench import cost, foreign, records, slices, timing, worker
from lipref.bench.requests import BenchPlan, Network
from lipref.bench.rounds import PEAKS, SECONDS
from lipref.errors import LiprefError
from lipref.runs.provenance import write_json

CPU = torch.device("cpu")
AUTHORS = foreign.CODES["authors"]
FAKE = """
from torch import nn
print("noise")

class FirstChannels(nn.Module):
    def forward(self, x):
        return x[:, :10]

def get_model(model, layer):
    assert (model, layer) in {("ConvNetXS", "AOLConv2d"), ("ConvNetXS", "StandardConv2d"), ("TConvNetXS", "AOLConv2d")}
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 300))
    body.add_module("FirstChannels", FirstChannels())
    return body
"""


def checkout(folder, text=FAKE):
    """A module tree in the place of the authors' code."""
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "__init__.py").write_text("")
    (folder / "models" / "model_layer_combinations.py").write_text(text)
    return folder


def plan(out, **changes):
    usual = {"layers": ("standard", "aol"), "sizes": ("XS",), "image_sizes": (32,), "batch_size": 2, "device": "cpu"}
    usual |= {"quantities": ("train", "infer", "folded", "memory"), "repeats": 2, "rounds": 2, "out": out}
    return BenchPlan(**(usual | changes))


class Bench:
    """Takes the place of all workers: writes made-up records, keeps the requests, and moves the clock."""

    def __init__(self, seconds=None, our_times=lambda request: [1.0], fails=(), why="it broke"):
        self.requests, self.now, self.took = [], 0.0, seconds or (lambda request: 1.0)
        self.our_times, self.fails, self.why = our_times, fails, why

    def __call__(self, request, timeout=None):
        name = request.get("layer") or request["config"]["layer"]
        self.requests.append((request["do"], name, request["number"], *request.get("parts", ())))
        took = self.took(request)
        if timeout is not None and took > timeout:
            self.now += timeout
            raise worker.TimeUp
        self.now += took
        if (request["do"], name) in self.fails:
            raise LiprefError(self.why)
        if request["do"] == "ours":
            self.ours(request)
        else:
            config = timing.ForeignConfig(**request["config"])
            for part in request["parts"]:
                result = {"status": "done", "times": [4.0, 6.0], "warm_up": 2}
                if part == "memory":
                    result = {"status": "done", "steps": 3} | dict.fromkeys(PEAKS, 300)
                if (part, name) in self.fails:
                    raise LiprefError(f"{part} broke")
                records.write(
                    request["root"], config, request["number"], part, result, request["ours"], CPU, request["origin"]
                )
        return {}

    def ours(self, request):
        spec, options = spec_of(request["layer"]), request["options"]
        config = cost.configure(spec, request["size"], device="cpu", **options)
        times = self.our_times(request)  # None where memory runs out
        result = {"parameters": 1, "exhausted": times is None} | dict.fromkeys(SECONDS, times)
        result |= dict.fromkeys(PEAKS, 200 if request["layer"] == "aol" else 100) if request["number"] == 0 else {}
        part = {"format": 1, "digest": config.digest, "round": request["number"], "result": result}
        folder = worker.Path(request["root"]) / config.folder
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"round{request['number']}.json", part)

    def run(self, plan, **options):
        workers = {worker.OURS: self, "authors": self, "orthogonium": self}
        return slices.run(plan, workers, now=lambda: self.now, **options)


def spec_of(layer):
    return Network(layer, "XS", 32).spec
