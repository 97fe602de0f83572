"""tools.mutants: every change once, killed by the tests that look at it."""
import ast
import sys

import pytest
from conftest import command

from tools.mutants import mutants, survives

TEXT = '''def f(a, b: "a text" = -1, c="d"):
    """Not this."""
    if a < b <= 3 and not a:
        raise ValueError("nor this")
    print(a)
    a += 2
    return a @ b if c else f"{a} nor this", True
'''


def test_each_change_is_made_once_and_taken_back():
    found = list(mutants(TEXT))
    assert sorted((number, changed) for number, changed, _ in found) == [
        (1, "def f(a, b: 'a text'=-1, c='dx'):"), (1, "def f(a, b: 'a text'=-2, c='d'):"), (3, "if a < b < 3 and (not a):"), (3, "if a < b <= 3 or not a:"),
        (3, "if a < b <= 4 and (not a):"), (3, "if a <= b <= 3 and (not a):"), (5, "None"), (6, "a += 3"), (6, "a -= 2"),
        (7, "return (a * b if c else f'{a} nor this', True)"), (7, "return (a @ b if c else f'{a} nor this', False)"),
        (7, "return (a @ b if not c else f'{a} nor this', True)")]
    original = ast.unparse(ast.parse(TEXT)).splitlines()
    assert all(sum(line != old for line, old in zip(text.splitlines(), original)) == 1 for _, _, text in found)


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has threads and frameworks loaded")
def test_a_mutant_is_killed_by_a_test_that_fails_on_it_or_never_ends(tmp_path):
    test = tmp_path / "test_toy.py"
    test.write_text("import os, sys\nsys.path.insert(0, os.environ['HYCORA_CORE'])\n\ndef test():\n    import toy\n    assert toy.f(2) == 4\n")
    for text, alive in (("def f(x):\n    return x * 2\n", True), ("def f(x):\n    return x + 2\n", True), ("def f(x):\n    return x / 2\n", False),
                        ("def f(x):\n", False), ("while True:\n    pass\n", False)):
        assert survives("toy", text, [str(test)], timeout=1 if "while" in text else 60) == alive


@pytest.mark.parametrize("args, message", [(["nothing"], "nothing has no tests here"), (["losses", "--lines", "9"], "--lines is '9'"), (["--timeout", "0"], "has to be positive")])
def test_a_wrong_call_is_one_line(args, message):
    assert message in command("tools.mutants", *args, ok=False).stderr
