"""A run that goes on longer than planned, and one that is tried before it is finished."""
import json
import shutil

import pytest
import torch
from conftest import records
from safetensors.torch import load_file

import train
from checkpoint import load_run, read_run

ARGS = ["--language", "zh", "--max-steps", "4", "--score-limit", "0", "--rank", "2", "--log-every", "1", "--save-every", "2"]


def steps_of(run):
    return records(run / "metrics.jsonl")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    train.run_training([*ARGS, "--out", str(run)])
    return run


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(trained, tmp_path / "run")


def test_a_finished_run_goes_on_with_the_schedule_of_its_new_length(finished):
    before, epochs = load_file(finished / "adapter.safetensors"), read_run(finished)["epochs"]
    of_shorter = [finished / name for name in ("scores.json", "predictions.jsonl", "scores-2.json", "likelihood-2.jsonl", "turns.json")]
    for path in (*of_shorter, finished / "scores_backbone.json"):
        path.write_text("{}")
    train.run_training(["--resume", str(finished), "--max-steps", "7"])
    assert not any(path.exists() for path in of_shorter) and (finished / "scores_backbone.json").is_file()
    config = read_run(finished)
    assert config["max_steps"] == 7 and config["lengthened"] == [{"step": 4, "epochs": epochs, "max_steps": 4}]
    lines = steps_of(finished)
    assert [line["step"] for line in lines] == list(range(7))
    cfg = train.read_arguments(["--resume", str(finished)])[0]
    assert [line["lr"] for line in lines[4:]] == [train.lr_at(step, 7, cfg) for step in (4, 5, 6)]
    after = load_file(finished / "adapter.safetensors")
    assert any((after[name] != before[name]).any() for name in before)

    train.run_training(["--resume", str(finished)])                                        # as long as it is now: nothing to do
    assert len(steps_of(finished)) == 7 and len(read_run(finished)["lengthened"]) == 1


def test_epochs_count_whatever_max_steps_was(finished):
    cfg, _ = train.read_arguments(["--resume", str(finished), "--epochs", "2"])
    assert (cfg.epochs, cfg.max_steps) == (2.0, 0)
    assert train.read_arguments(["--resume", str(finished)])[0].max_steps == 4


@pytest.mark.parametrize("args, message", [(["--max-steps", "3"], "is at step 4 already, and the new length has 3"),
                                           (["--lr", "1"], "no other key goes with it than --epochs or --max-steps"), (["--epochs", "-1"], "epochs is -1")])
def test_a_length_that_cannot_be_is_refused_and_the_run_stays_as_it_is(finished, args, message):
    before = (finished / "config.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        train.run_training(["--resume", str(finished), *args])
    assert (finished / "config.json").read_bytes() == before and (finished / "adapter.safetensors").is_file()


def test_a_run_of_a_version_without_a_key_has_its_default(finished):
    config = json.loads((finished / "config.json").read_text())
    del config["epochs"]
    (finished / "config.json").write_text(json.dumps(config))
    train.run_training(["--resume", str(finished), "--max-steps", "5"])
    assert read_run(finished)["lengthened"] == [{"step": 4, "epochs": 3.0, "max_steps": 4}]


def test_an_unfinished_run_can_be_tried(finished, capsys):
    expected = load_file(finished / "adapter.safetensors")
    (finished / "adapter.safetensors").unlink()
    model, _, _ = load_run(finished, "cpu")
    assert "is not finished: this is its checkpoint of step 4" in capsys.readouterr().out
    assert all(torch.equal(p, expected[name]) for name, p in model.trainable().items())

    (finished / "checkpoint/00000004.safetensors").write_bytes(b"cut off")
    load_run(finished, "cpu")
    out = capsys.readouterr().out
    assert "is broken" in out and "checkpoint of step 2" in out


def test_a_run_without_any_checkpoint_says_so(finished):
    (finished / "adapter.safetensors").unlink()
    for path in (finished / "checkpoint").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="neither finished nor has it a checkpoint"):
        load_run(finished, "cpu")


def test_a_chat_template_that_has_changed_since_the_training_is_noticed(finished, capsys):
    config = read_run(finished)
    assert config["prompt"] == "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
    load_run(finished, "cpu")
    assert "another chat template" not in capsys.readouterr().out
    kept = json.loads((finished / "config.json").read_text())
    (finished / "config.json").write_text(json.dumps(kept | {"prompt": "<|im_start|>system\n" + kept["prompt"]}))
    load_run(finished, "cpu")
    assert "tiny/backbone has another chat template now" in capsys.readouterr().out


def test_a_finished_run_whose_checkpoints_are_broken_is_not_trained_anew(finished):
    for path in (finished / "checkpoint").glob("*.safetensors"):
        path.write_bytes(b"cut off")
    with pytest.raises(ValueError, match="has no usable checkpoint: start anew with another --out"):
        train.run_training(["--resume", str(finished), "--max-steps", "7"])
