"""The house stays readable: floors, docstrings, sizes, equations. Each rule fails with the name of who broke it."""
import ast
import re
import sys

import pytest
from conftest import ROOT

FLOORS = [["console"],
          ["files", "processes", "selection", "model_config"],
          ["model", "hyper", "losses", "tokenizer", "data", "batches", "generate", "metrics"],
          ["hycora_layer", "report"],
          ["config"],
          ["arguments"],
          ["checkpoint", "likelihood", "memory"],
          ["eval", "chat"],
          ["watch", "prepare", "metrics_log"],
          ["train"]]                                                     # a module imports only from the floors below its own
MODULES = [name for floor in FLOORS for name in floor]
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("[a-z]*.py"))
RUN_TIME = {"torch", "tokenizers", "safetensors", "numpy", "tqdm", "huggingface_hub", "sentencepiece", "jinja2"}  # the last two: optional; torch brings jinja2


def source(name):
    return (ROOT / f"{name}.py").read_text("utf8")


def imports(name):
    """Top-level names that a module imports, inside of functions as well."""
    found = set()
    for node in ast.walk(ast.parse(source(name))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


def test_the_floors_are_the_modules_at_the_root():
    assert sorted(MODULES) == sorted(path.stem for path in ROOT.glob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_down_only(name):
    """So there is no circle, and nothing in the core knows a tool."""
    floor = next(i for i, names in enumerate(FLOORS) if name in names)
    below = {other for names in FLOORS[:floor] for other in names}
    ours = imports(name) & {*MODULES, "tools", "tests", "benchmarks", "tiny"}
    assert ours <= below, f"{name}.py imports {sorted(ours - below)}"


@pytest.mark.parametrize("name", MODULES)
def test_what_is_needed_at_run_time_is_six_packages(name):
    foreign = {found for found in imports(name) - set(MODULES) if found not in sys.stdlib_module_names}
    assert foreign <= RUN_TIME, f"{name}.py imports {sorted(foreign - RUN_TIME)}"
    assert len((ROOT / "requirements.txt").read_text().split()) == 6


def test_every_command_of_the_tools_is_listed():
    listed = re.findall(r"^.{22}(\w+) {2,}\S", (ROOT / "tools/__init__.py").read_text("utf8"), re.M)
    assert sorted(listed) == [tool for tool in TOOLS if "def main(" in source(f"tools/{tool}")]


def without_docstring(name):
    """Public classes and functions of a module that say nothing of themselves. forward, backward and overrides are described by what they
    belong to; a function inside a function is its owner's."""
    tree = ast.parse(source(name))
    methods = {}                                                         # {class: its methods that have a docstring}
    missing = [] if ast.get_docstring(tree) else [name]
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        if not ast.get_docstring(node):
            missing.append(node.name)
        if isinstance(node, ast.ClassDef):
            inherited = set().union(*(methods.get(getattr(base, "id", None), set()) for base in node.bases))
            own = [f for f in node.body if isinstance(f, ast.FunctionDef)]
            methods[node.name] = inherited | {f.name for f in own if ast.get_docstring(f)}
            missing += [f"{node.name}.{f.name}" for f in own
                        if not f.name.startswith("_") and f.name not in ("forward", "backward") and f.name not in methods[node.name]]
    return [found for found in missing if not found.startswith("_")]


@pytest.mark.parametrize("name", [*MODULES, *(f"tools/{tool}" for tool in TOOLS)])
def test_every_public_function_has_a_docstring(name):
    assert without_docstring(name) == []


def test_a_missing_docstring_would_be_found(monkeypatch):
    text = '"""A module."""\nclass A:\n    "A class."\n    def f(self):\n        pass\n\ndef g():\n    pass\n'
    monkeypatch.setattr(sys.modules[__name__], "source", lambda name: text)
    assert without_docstring("x") == ["A.f", "g"]


@pytest.mark.parametrize("name", MODULES)
def test_no_file_is_longer_than_one_sitting(name):
    assert source(name).count("\n") <= 400


def test_every_equation_stands_in_the_code_once():
    text = "".join(source(name) for name in MODULES)
    for number in range(1, 9):
        assert len(re.findall(rf"\S  .*# Eq\. {number}\b", text)) == 1, number


def test_no_line_count_is_typed():
    """Counts that are typed go wrong with the next change."""
    table = [line for line in (ROOT / "README.md").read_text("utf8").splitlines() if re.match(r"\| `\w+\.py` \|", line)]
    assert len(table) == len(MODULES)
    assert not [line for line in table if re.search(r"\| *\d+ *\|", line)]
