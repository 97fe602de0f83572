"""The README tells the truth: its commands parse, its snippet runs, its table of files is the house."""
import re
import shlex

from conftest import ROOT

import eval as evaluation
import train

README = (ROOT / "README.md").read_text("utf8")
MODULES = ["files", "console", "metrics", "generate", "tokenizer", "model", "hyper", "losses", "data", "hycora_layer", "config", "checkpoint", "eval", "train"]


def test_every_command_parses():
    lines = [line for block in re.findall(r"^```\w*\n(.*?)^```", README, re.S | re.M)
             for line in block.replace("\\\n", "").splitlines()]
    commands = [line for line in lines if line.startswith("python ")] + re.findall(r"`(python [^`]+\.py[^`]*)`", README)
    assert len(commands) > 5
    for command in commands:
        _, script, *args = shlex.split(command)
        if script == "eval.py":
            evaluation.parse_args(args)
        elif script == "train.py" and not {"--resume", "--help"} & set(args):
            train.parse_args(args)
        else:
            assert script == "train.py" or (ROOT / args[0].replace(".", "/")).with_suffix(".py").is_file()


def test_the_library_snippet_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names = {}
    exec(snippet, names)
    assert names["logits"].shape == (3, 16, 3072)


FLOORS = [["files", "console"], ["model", "hyper", "losses", "tokenizer", "data", "generate", "metrics"], ["hycora_layer"], ["config"], ["checkpoint"],
          ["eval"], ["train"]]                                           # a module imports only from the floors below its own


def test_imports_run_down_only():
    known = []
    for floor in FLOORS:
        for name in floor:
            text = (ROOT / f"{name}.py").read_text("utf8")
            imported = set(re.findall(r"^ *(?:from|import) (\w+)", text, re.M)) & set(sum(FLOORS, []))
            assert imported <= set(known), f"{name}.py imports {imported - set(known)}"
        known += floor
    assert sorted(known) == sorted(MODULES)
    assert sorted(re.findall(r"^\| `(\w+)\.py` \|", README, re.M)) == sorted(MODULES)


def test_every_equation_stands_in_the_code_once():
    text = "".join((ROOT / f"{name}.py").read_text("utf8") for name in MODULES)
    for number in range(1, 9):
        assert len(re.findall(rf"\S  .*# Eq\. {number}\b", text)) == 1, number


def test_what_is_needed_at_run_time_is_six_packages():
    allowed = {"torch", "tokenizers", "safetensors", "numpy", "tqdm", "huggingface_hub", *MODULES, "sentencepiece"}     # the last: optional
    import sys
    for name in MODULES:
        for found in re.findall(r"^\s*(?:from|import) (\w+)", (ROOT / f"{name}.py").read_text("utf8"), re.M):
            assert found in allowed or found in sys.stdlib_module_names, (name, found)
    assert len((ROOT / "requirements.txt").read_text().split()) == 6
