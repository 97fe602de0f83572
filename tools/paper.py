"""docs/paper.md, the paper beside the code: the text of tools/paper.md, with code that is cut out of the source.

    python -m tools.paper

A mark in the text         what takes its place
    {{code Eq. 7}}             the function around the line that is tagged "# Eq. 7"; docstrings are left out
    {{code Eq. 2 class}}       the class around that function
    {{code train.backward}}    a function, class, method or table by its name
    {{shapes ...}}             a table, of lines "name | its dimensions in the letters of `letters` | what it is"
    {{= d_h * r}}              a number, in those letters
    {{parameters}}             the trainable parameters of every method, counted by `tools.params`
    {{test FILE NAME}}         a link to a test
    {{notebook 01 HEADING}}    a link to a notebook that names one of its sections
    {{figure NAME TEXT}}       a figure of docs/figures

A mark that names something that does not exist is an error, so the page has no dead references.
"""
from console import Parser, one_line_errors, render_table

import re

from arguments import read_config
from files import ROOT, read_json, write_text
from hycora_layer import METHODS
from losses import lambda_at
from tools.params import AUTHORS, LLAMA2_7B, trainable
from tools.source import cut, named, tagged

NO_BREAK = "\N{NO-BREAK SPACE}"
TEMPLATE = ROOT / "tools/paper.md"
PAGE = ROOT / "docs/paper.md"
EXAMPLE_BATCH = dict(B=8, T=512, R=5, N=2048)         # rows, tokens, distinct roles, supervised tokens


def letters():
    """{letter: its value} on LLaMA-2-7B."""
    config = read_config(AUTHORS)
    width = LLAMA2_7B["hidden_size"]
    n = LLAMA2_7B["num_hidden_layers"]
    model = dict(n=n, L=7 * n, C=width, d_in=width, d_out=width, d_ff=LLAMA2_7B["intermediate_size"],
                 V=LLAMA2_7B["vocab_size"])
    adapter = dict(r=config["rank"], alpha=config["alpha"], k=config["head_rank"], d_c=config["role_dim"],
                   d_z=config["role_dim"], d_l=config["layer_dim"], d_h=config["hidden_dim"],
                   blocks=config["num_blocks"])
    return EXAMPLE_BATCH | model | adapter | {"lambda_at": lambda_at}


# ------------------------------------------------------------------------------------------------- what a mark becomes
def code(what):
    """A link to the file, and the lines."""
    equation = re.fullmatch(r"Eq\. (\d+)( class)?", what)
    if equation:
        path, owner, function = tagged(int(equation[1]))
        node = owner if equation[2] else function
        name = function.name if owner is None else owner.name if equation[2] else f"{owner.name}.{function.name}"
    else:
        path, node = named(what)
        name = what.partition(".")[2]
    return f"[`{path.name}`](../{path.name}), `{name}`:\n\n```python\n{cut(path, node)}\n```"


def number(expression):
    """An expression in the letters, as text: 8,388,608 or 0.15."""
    value = eval(expression, {}, letters())
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def shapes(lines):
    """The table of a {{shapes}} mark."""
    rows = [["", "shape", "LLaMA-2-7B", ""]]
    for line in lines.strip().splitlines():
        name, dimensions, meaning = (cell.strip() for cell in line.split("|"))
        values = " × ".join(number(d) for d in dimensions.split(","))
        cells = [f"`{name}`", f"`({dimensions})`", values]
        rows.append([*(cell.replace(" ", NO_BREAK) for cell in cells), meaning])
    return render_table(rows, markdown=True)


def parameters(_):
    """Trainable parameters of every method, at 5 and 95 roles, and what one more role costs."""
    rows = [["method", "5 roles", "95 roles", "one more role"]]
    for method in METHODS:
        many = trainable(method, 95)
        one_more = trainable(method, 96) - many
        few = many - 90 * one_more                                       # all of them are linear in the number of roles
        rows.append([f"`{method}`", f"{few / 1e6:,.2f} M", f"{many / 1e6:,.2f} M", f"{one_more:,}"])
    return render_table(rows, markdown=True)


def test(where):
    """A link to a test."""
    file, name = where.split()
    path = ROOT / "tests" / f"{file}.py"
    if not path.is_file() or f"def {name}(" not in path.read_text("utf8"):
        raise ValueError(f"there is no {name} in tests/{file}.py")
    return f"[`{name}`](../tests/{file}.py)"


def notebook(where):
    """A link to a notebook, naming the section."""
    start, heading = where.split(" ", 1)
    found = sorted((ROOT / "notebooks").glob(f"{start}_*.ipynb"))
    if not found:
        raise ValueError(f"there is no notebook {start}")
    cells = read_json(found[0])["cells"]
    headings = re.findall(r"^#+ (.+)$", "\n".join("".join(cell["source"]) for cell in cells), re.M)
    if heading not in headings:
        raise ValueError(f"{found[0].name} has no section {heading!r}")
    return f"[notebook {int(start)}](../notebooks/{found[0].name}), *{heading}*"


def figure(what):
    """A figure with its description below."""
    name, text = what.split(" ", 1)
    if not (ROOT / f"docs/figures/{name}.svg").is_file():
        raise ValueError(f"there is no docs/figures/{name}.svg")
    return f"![{text}](figures/{name}.svg)\n\n*{text}.*"


def make_page():
    """The page as text. ValueError names the mark that is wrong."""
    makers = {"code": code, "=": number, "shapes": shapes, "parameters": parameters, "test": test, "notebook": notebook,
              "figure": figure}

    def fill(match):
        kind, argument = re.fullmatch(r"(\S+)\s*(.*)", match[1].strip(), re.S).groups()
        if kind != "shapes":
            argument = " ".join(argument.split())                        # a mark may be broken over two lines
        try:
            return makers[kind](argument)
        except (ValueError, KeyError, NameError, SyntaxError) as e:
            raise ValueError(f"{TEMPLATE.name}: {match[0][:60]}: {e}") from None
    return re.sub(r"\{\{(.+?)\}\}", fill, TEMPLATE.read_text("utf8"), flags=re.S)


@one_line_errors("tools.paper")
def main():
    """The command."""
    Parser(description=__doc__.split("\n")[0]).parse_args()
    write_text(PAGE, make_page())
    print("wrote docs/paper.md")


if __name__ == "__main__":
    main()
