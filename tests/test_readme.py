"""The README and docs/ tell the truth: commands parse, the snippet runs, the table of files is the house."""
import re
import shlex

import pytest
from conftest import ROOT
from test_house import MODULES

import chat
import eval as evaluation
from arguments import parse_args

README = (ROOT / "README.md").read_text("utf8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text):
    """The commands of a page: lines of its code blocks, and what stands between backticks."""
    lines = [line for block in re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
             for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if line.startswith("python ")] + re.findall(r"`(python [^`]+\.py[^`]*)`", text)


def test_the_readme_has_commands():
    assert len(commands(README)) > 5


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200 and len(README.split()) <= 1800


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_parses(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for command in commands(page.read_text("utf8")):
        _, script, *args = shlex.split(command, comments=True)
        if script in ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py"):               # llama.cpp's
            continue
        if script == "eval.py":
            evaluation.parse_args(args)
        elif script == "chat.py":
            chat.parse_args(args)
        elif script == "train.py" and not {"--resume", "--help"} & set(args):
            parse_args(args)
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
