"""What a person sees in a terminal: aligned tables, text that is safe to print, and one line for an error."""
import re
import sys
import unicodedata
from contextlib import contextmanager


@contextmanager
def one_line_errors(program):
    """Bad input ends the program with one line, `program: what is wrong`, and exit code 1; a traceback is a bug."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{program}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{program}: interrupted")


def printable(text):
    """`text` without the control characters that a terminal would obey."""
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", " ", text)


def counted(number, noun):
    """"1 role", "2 roles"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def display_width(text):
    """Columns that a text takes in a terminal; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def pad(text, width):
    """`text`, left-justified to `width` columns."""
    return text + " " * (width - display_width(text))


def render_table(rows, markdown=False):
    """Rows of texts, headings first, as aligned columns or as Markdown."""
    if markdown:
        ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
        return "\n".join(f"| {' | '.join(row)} |" for row in ruled)
    widths = [max(map(display_width, column)) + 2 for column in zip(*rows)]
    lines = ["".join(map(pad, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)
