"""The README tells the truth: its commands parse, its snippet runs, its table of files is the house."""
import re
import shlex

from conftest import ROOT
from test_house import MODULES

import chat
import eval as evaluation
import train

README = (ROOT / "README.md").read_text("utf8")


def test_every_command_parses():
    lines = [line for block in re.findall(r"^```\w*\n(.*?)^```", README, re.S | re.M)
             for line in block.replace("\\\n", "").splitlines()]
    commands = [line for line in lines if line.startswith("python ")] + re.findall(r"`(python [^`]+\.py[^`]*)`", README)
    assert len(commands) > 5
    for command in commands:
        _, script, *args = shlex.split(command)
        if script == "eval.py":
            evaluation.parse_args(args)
        elif script == "chat.py":
            chat.parse_args(args)
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


def test_the_table_of_files_is_the_house():
    assert sorted(re.findall(r"^\| `(\w+)\.py` \|", README, re.M)) == sorted(MODULES)
