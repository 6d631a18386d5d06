import dataclasses
import multiprocessing
import os
import signal
import time

import pytest
import torch
from torch import nn
from toy_training import SETTINGS, Interrupted, Synthetic, bits, build, interrupt_at, timeless, undisturbed

from lipref import tensor_files
from lipref.errors import LiprefError
from lipref.training import train


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["onecycle", "paper", "constant"])
def settings(request):
    return dataclasses.replace(SETTINGS, schedule=request.param)


@pytest.mark.parametrize("stops", [(1,), (4,), (5, 6, 11), (12,), tuple(range(1, 13))])
def test_an_interrupted_run_ends_like_an_undisturbed_one(tmp_path, settings, stops):
    reference, expected = undisturbed(settings)
    callback, path = interrupt_at(*stops), tmp_path / "checkpoint"
    for _ in stops:
        with pytest.raises(Interrupted):
            train(build(), Synthetic(), settings, checkpoint_path=path, checkpoint_seconds=0, on_progress=callback)
        torch.manual_seed(int(time.time()))
    steps = []
    model = build()
    outcome = train(
        model, Synthetic(), settings, checkpoint_path=path, on_progress=lambda progress: steps.append(progress.step)
    )
    assert steps == list(range(stops[-1] + 1, 13))  # nothing was done twice
    assert bits(model) == bits(reference)
    assert timeless(outcome.history) == timeless(expected.history)
    assert outcome.steps == expected.steps
    assert outcome.train_seconds == pytest.approx(sum(row["seconds"] for row in outcome.history))
    assert not model.training


def test_a_finished_run_is_not_run_again(tmp_path):
    path = tmp_path / "checkpoint"
    first = build()
    done = train(first, Synthetic(), SETTINGS, checkpoint_path=path)
    before = path.read_bytes()
    second = build()
    again = train(second, Synthetic(), SETTINGS, checkpoint_path=path, on_progress=interrupt_at(*range(1, 13)))
    assert again == done
    assert bits(second) == bits(first)
    assert not second.training
    assert path.read_bytes() == before


def test_between_two_checkpoints_time_must_pass(tmp_path):
    path, seen = tmp_path / "checkpoint", []
    train(
        build(),
        Synthetic(),
        SETTINGS,
        checkpoint_path=path,
        checkpoint_seconds=3600,
        on_progress=lambda progress: seen.append(path.exists()),
    )
    assert seen == [False] * 11 + [True]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": dataclasses.replace(SETTINGS, epochs=4)}, "epochs=3 instead of 4"),
        ({"settings": dataclasses.replace(SETTINGS, learning_rate=0.2)}, "learning_rate=0.01 instead of 0.2"),
        ({"config_digest": "other"}, "config_digest='mine' instead of 'other'"),
        ({"batches": Synthetic(images=20)}, "steps_per_epoch=4 instead of 3"),
        ({"model": build().double()}, "torch.float64"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(192, 3))}, "absent"),
        ({"model": nn.Sequential(*build(), nn.Linear(3, 3))}, "absent"),
        ({"model": nn.Sequential(*build()[:-1], nn.Linear(6 * 64, 4))}, "(3"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path, change, named):
    path = tmp_path / "checkpoint"
    with pytest.raises(Interrupted):
        train(
            build(),
            Synthetic(),
            SETTINGS,
            checkpoint_path=path,
            checkpoint_seconds=0,
            on_progress=interrupt_at(6),
            config_digest="mine",
        )
    before = path.read_bytes()
    given = {"model": build(), "batches": Synthetic(), "settings": SETTINGS, "config_digest": "mine"} | change
    weights = bits(given["model"])
    with pytest.raises(LiprefError) as caught:
        train(**given, checkpoint_path=path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert bits(given["model"]) == weights


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "pickle", "foreign", "folder"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    path = tmp_path / "checkpoint"
    with pytest.raises(Interrupted):
        train(build(), Synthetic(), SETTINGS, checkpoint_path=path, checkpoint_seconds=0, on_progress=interrupt_at(6))
    whole = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(whole[:-99] + bytes([whole[-99] ^ 1]) + whole[-98:])
    elif damage == "truncated":
        path.write_bytes(whole[:-1])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "pickle":
        torch.save({}, path)
    elif damage == "foreign":
        tensor_files.save(path, {}, {})
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(LiprefError) as caught:
        train(build(), Synthetic(), SETTINGS, checkpoint_path=path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def work(folder, mishap, checkpoint_seconds):
    """A process of its own that trains, reports its steps, and kills itself at the place that ``mishap`` names."""
    torch.set_num_threads(1)
    torch.manual_seed(os.getpid())
    path = os.path.join(folder, "checkpoint")
    replace, writes = os.replace, 0

    def counted_replace(source, target):
        nonlocal writes
        writes += 1
        if mishap == ("before write", writes):
            with open(source, "rb+") as file:
                file.truncate(100)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if mishap == ("after write", writes):
            os.kill(os.getpid(), signal.SIGKILL)

    def report(progress):
        with open(os.path.join(folder, "steps"), "a", encoding="utf-8") as file:
            file.write(f"{progress.step}\n")
        if mishap == ("at step", progress.step):
            os.kill(os.getpid(), signal.SIGKILL)
        # Slow enough for the parent to hit it anywhere, and never done before the parent does.
        time.sleep(3600 if mishap == ("wait at step", progress.step) else 0.02)

    os.replace = counted_replace
    model = build()
    outcome = train(
        model, Synthetic(), SETTINGS, checkpoint_path=path, checkpoint_seconds=checkpoint_seconds, on_progress=report
    )
    os.replace = replace
    tensor_files.save(
        os.path.join(folder, "result"),
        model.state_dict(),
        {"history": outcome.history, "status": outcome.status, "steps": outcome.steps},
    )


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_run_killed_at_any_moment_ends_like_an_undisturbed_one(tmp_path):
    reference, expected = undisturbed()
    # Each process is forked from one that has loaded torch and computed nothing: as fresh, within milliseconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "torch._dynamo", "lipref.training"])
    steps = tmp_path / "steps"

    def run(mishap=None, kill_after_lines=None, checkpoint_seconds=0.0):
        process = context.Process(target=work, args=(str(tmp_path), mishap, checkpoint_seconds))
        before = len(steps.read_text().split()) if steps.exists() else 0
        process.start()
        while kill_after_lines is not None and process.is_alive():
            if steps.exists() and len(steps.read_text().split()) >= before + kill_after_lines:
                process.kill()
            time.sleep(0.001)
        process.join()
        return process.exitcode

    killed = -signal.SIGKILL
    assert run(("at step", 5), checkpoint_seconds=3600.0) == killed  # before any checkpoint
    assert run(("before write", 1)) == killed  # a temporary file is left
    assert run(("after write", 2)) == killed
    assert run(("wait at step", 8), kill_after_lines=2) == killed
    assert run(("before write", 1)) == killed
    assert run(("wait at step", 9), kill_after_lines=1, checkpoint_seconds=0.01) == killed
    assert run(("at step", 10)) == killed
    assert not (tmp_path / "result").exists()
    assert run() == 0
    weights, result = tensor_files.load(tmp_path / "result")
    done = [int(line) for line in steps.read_text().split()]
    assert done[:6] == [1, 2, 3, 4, 5, 1]  # the first process left nothing
    assert done[6:].count(1) == 0  # the third went on from what the second had written
    assert done[-2:] == [11, 12]
    for name, tensor in reference.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    assert timeless(result["history"]) == timeless(expected.history)
    assert (result["status"], result["steps"]) == ("done", 12)
