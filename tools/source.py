"""Functions, classes and tables of the source: found by name or by the tag of their equation, cut out, left blank."""
import ast
import io
import itertools
import re
import textwrap
import tokenize

from files import ROOT


def tagged(number):
    """(path, class or None, function) around the line that carries the tag of equation `number`."""
    for path in sorted(ROOT.glob("*.py")):
        text = path.read_text("utf8")
        match = re.search(rf"\S  .*# Eq\. {number}\b", text)
        if not match:
            continue
        line = text[:match.start()].count("\n") + 1
        around = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.ClassDef, ast.FunctionDef))
                  and node.lineno <= line <= node.end_lineno]
        around.sort(key=lambda node: node.lineno)
        owner = around[0] if isinstance(around[0], ast.ClassDef) else None
        return path, owner, around[-1]
    raise ValueError(f"no line carries the tag # Eq. {number}")


def named(name):
    """(path, node) of "module.function", "module.Class.method" or "module.TABLE"."""
    module, _, name = name.partition(".")
    path = ROOT / f"{module}.py"
    if not path.is_file():
        raise ValueError(f"there is no {module}.py")
    try:
        return path, find(path.read_text("utf8"), name)
    except ValueError as e:
        raise ValueError(f"{path.name}: {e}") from None


def find(text, name):
    """The node of "function", "Class.method" or "TABLE" in a source text. ValueError if there is none."""
    node = ast.parse(text)
    for part in name.split("."):
        for child in node.body:
            is_table = isinstance(child, ast.Assign) and getattr(child.targets[0], "id", None) == part
            if is_table or getattr(child, "name", None) == part:
                node = child
                break
        else:
            raise ValueError(f"there is no {name}")
    return node


def cut(path, node):
    """The lines of a node, without docstrings; comments at line ends move left together."""
    lines = path.read_text("utf8").splitlines()
    dropped = set()
    for inner in ast.walk(node):
        if isinstance(inner, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(inner):
            dropped |= set(range(inner.body[0].lineno, inner.body[0].end_lineno + 1))

    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    kept = [lines[n - 1] for n in range(first, node.end_lineno + 1) if n not in dropped]

    gaps = [len(gap) for line in kept for gap in re.findall(r"\S( {2,})# ", line)]
    excess = " " * (min(gaps, default=2) - 2)
    kept = [re.sub(rf"(\S){excess}(  +# )", r"\1\2", line) for line in kept]
    return textwrap.dedent("\n".join(kept))


# ------------------------------------------------------------------------------------------ blanks, for exercises
def is_guard(node):
    """Whether a statement does nothing but raise or return if something holds."""
    return isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], (ast.Raise, ast.Return))


def blank(text, name, message):
    """`text` with the body of a function, after the guards that it begins with, replaced by its comments and a
    NotImplementedError."""
    node = find(text, name)
    lines = text.splitlines(keepends=True)
    body = node.body[1:] if ast.get_docstring(node) else node.body
    body = list(itertools.dropwhile(is_guard, body))
    first = body[0].lineno - 1

    # comments of the body; those at line ends, the shapes among them, get lines of their own
    indent = " " * body[0].col_offset
    comments = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and first < token.start[0] <= node.end_lineno:
            comments.append(f"{indent}{token.string}\n")
    comments.append(f'{indent}raise NotImplementedError("{message}")\n')
    return "".join(lines[:first] + comments + lines[node.end_lineno:])


def transplant(text, source, name):
    """`text` with a function as it is in `source`."""
    there = find(source, name)
    here = find(text, name)
    lines = text.splitlines(keepends=True)
    function = source.splitlines(keepends=True)[there.lineno - 1:there.end_lineno]
    return "".join(lines[:here.lineno - 1] + function + lines[here.end_lineno:])
