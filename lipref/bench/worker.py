"""A process that measures: one for our layers, and one for each other code, which is imported nowhere else.

Requests and replies are lines of JSON. A process can be stopped at any moment; what it had written is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

import lipref
from lipref.bench import cost, records, timing
from lipref.bench.foreign import CODES, origin
from lipref.errors import LiprefError
from lipref.layers import resolve

OURS = "lipref"


class TimeUp(Exception):
    """A request took longer than it was given; its process is gone."""


class Asked(Protocol):
    """What does requests: a `Worker`, or `answer` itself."""

    def __call__(self, request: dict, timeout: float | None = None) -> dict:
        """The reply to a request of `answer`."""


def answer(request: dict, timeout: float | None = None) -> dict:
    """Do one request in this process.

    * ``hello``: import ``code``. Returns ``sha256`` of its source, ``lacks``, layers with reasons, and ``origin``.
    * ``ours``: round ``number`` of a measurement of ours into ``root`` (`lipref.bench.cost.execute_round`).
    * ``theirs``: the ``parts`` of round ``number`` of other people's network, each written as it is done.

    Raises:
        LiprefError: the code cannot be imported or used, a layer fails.
    """
    what = request["do"]
    if what == "hello":
        return _hello(request["code"])
    device = torch.device(request["device"])
    if what == "ours":
        spec = resolve(request["layer"])
        config = cost.configure(spec, request["size"], device=device, **request["options"])
        cost.execute_round(config, spec, Path(request["root"]), request["number"], device=device)
        _give_back(device)
        return {"digest": config.digest}
    config = timing.ForeignConfig(**request["config"])
    for part in request["parts"]:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            result = timing.measure(CODES[config.against], config, part, request["number"], device)
        records.write(
            Path(request["root"]), config, request["number"], part, result, request["ours"], device, request["origin"]
        )
        _give_back(device)
    return {}


def _give_back(device: torch.device) -> None:
    """Memory that torch keeps for itself is another process's on the same GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _hello(name: str) -> dict:
    code = CODES[name]
    try:
        __import__(code.package)
        where = origin(code)
        return {"sha256": where["sha256"], "lacks": code.lacks(), "origin": where}
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        remedy = code.remedy if missing == code.package else f"pip install {missing}"
        raise LiprefError(f"--against {name}: {missing} is missing; {remedy}") from error
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise LiprefError(f"--against {name} cannot be imported: {text}; {code.remedy}") from error


class Worker:
    """A process that does requests, started with the first one and anew after it was stopped.

    Args:
        name: Whose code it runs, for messages.
        paths: Put before its ``sys.path``.
    """

    def __init__(self, name: str, paths: Sequence[Path] = ()) -> None:
        self.name, self.paths = name, paths
        self._process: subprocess.Popen | None = None
        self._log = None  # what it prints

    def __call__(self, request: dict, timeout: float | None = None) -> dict:
        """The reply.

        Raises:
            LiprefError: the request failed, or the process died.
            TimeUp: after ``timeout`` seconds; the process is stopped.
        """
        process = self._started()
        with contextlib.suppress(BrokenPipeError):  # it has died already, which reading tells
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], timeout)
        if not ready:
            self.stop()
            raise TimeUp
        line = process.stdout.readline()
        if not line:
            code, said = process.wait(), self._last_words()
            self.stop()
            raise LiprefError(f"the process that measures {self.name} died ({_ending(code)}){said}")
        reply = json.loads(line)
        if "error" in reply:
            raise LiprefError(reply["error"])
        return reply

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._log.close()
            self._process = None

    def _started(self) -> subprocess.Popen:
        if self._process is None:
            variables = os.environ | {"PYTHONPATH": os.pathsep.join(_places())}
            self._log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115
            given = {"threads": torch.get_num_threads(), "paths": [str(path) for path in self.paths], "argv": sys.argv}
            command = [sys.executable, "-m", __name__, json.dumps(given)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=variables
            )
        return self._process

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f": {said[-1]}" if said else ""


def _places() -> list[str]:
    """This library first, then what was there."""
    given = os.environ.get("PYTHONPATH", "")
    return [str(Path(lipref.__file__).resolve().parents[1]), *([given] if given else [])]


def _ending(code: int) -> str:
    return f"signal {-code}; the system may have had too little memory" if code < 0 else f"exit code {code}"


def _serve() -> None:
    """Answer the lines of standard input until it ends; whatever else prints goes to standard error."""
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    sys.path[:0] = given["paths"]
    sys.argv = given["argv"]  # the command that records name
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except LiprefError as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    _serve()
