"""The terminal: aligned tables, text that is safe to print, one line for an error, and Ctrl-C.

Commands import this module first: from then on Ctrl-C ends them with one line, even during the other imports.
"""
import argparse
import re
import signal
import sys
import unicodedata
from contextlib import contextmanager

MEMORY_ADVICE = ("out of memory ({}): lower what takes most of it (--batch-size, --max-length, --max-new-tokens, "
                 "--rank), train with --checkpoint-activations, or take a smaller model")
MEMORY_SIGNS = re.compile("out of memory|allocate memory|calculation overflow|numel: integer mult.* overflow", re.I)
UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f"                  # control characters that a terminal would obey
                         "\u200e\u200f\u2028-\u202e\u2066-\u2069"        # those that change the writing direction
                         "\ud800-\udfff]")                               # lone surrogates, which have no UTF-8 form


# ------------------------------------------------------------------------------------------------------------- errors
@contextmanager
def one_line_errors(program):
    """Bad input ends the program with one line, `program: what is wrong`, and exit code 1; a traceback is a bug.

    Within it, everything printed goes through `printable`.
    """
    stdout = sys.stdout
    sys.stdout = stdout and PrintableStream(stdout)
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{program}: {one_line(error)}")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit(f"{program}: {MEMORY_ADVICE.format(one_line(error, 100))}")
    except KeyboardInterrupt:
        sys.exit(f"{program}: interrupted")
    except SystemExit as stop:
        if isinstance(stop.code, str):
            stop.code = printable(stop.code)
        raise
    finally:
        sys.stdout = stdout


def is_out_of_memory(error):
    """Whether an exception means that the machine or its GPU is out of memory."""
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and bool(MEMORY_SIGNS.search(str(error)))


def one_line(error, limit=600):
    """An error's message, or its type's name, on one line that is safe to print."""
    text = " ".join(printable(str(error)).split()) or type(error).__name__
    return text if len(text) <= limit else text[:limit] + " ..."


def uncaught(kind, error, trace):
    """Python's hook for exceptions outside of `one_line_errors`: an interrupt becomes one line there too."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = uncaught


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors take one line."""
    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        """Raises a ValueError instead of ending the program; it becomes one line like any other error."""
        raise ValueError(f"{message} (--help lists all keys)")


# ------------------------------------------------------------------------------------------------------------ signals
class StopSignals(list):
    """Within this context Ctrl-C and SIGTERM are collected here instead of ending the program in mid-step."""
    def __enter__(self):
        self.before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, lambda received, _: self.append(received))
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


# --------------------------------------------------------------------------------------------------------------- text
def printable(text):
    """`text` without the characters that a terminal would obey or could not show: texts from data, models and
    services may contain anything."""
    return UNPRINTABLE.sub(" ", text)


class PrintableStream:
    """A text stream that passes `printable` text on to another, and escapes what its encoding lacks."""
    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        """Writes text."""
        encoding = self.stream.encoding or "utf8"
        self.stream.write(printable(text).encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def counted(number, noun):
    """"1 role", "2 roles"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def display_width(text):
    """Columns that a text takes in a terminal; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def pad(text, width):
    """`text`, left-justified to `width` columns."""
    return text + " " * (width - display_width(text))


def cell(text, markdown):
    """The text of a table's cell: one line, in Markdown without what would end the cell or start a link or a tag."""
    text = printable(text).replace("\n", " ")
    if markdown:
        text = text.replace("|", "\\|").replace("<", "&lt;").replace("](", "]\\(")
    return text


def render_table(rows, markdown=False):
    """Rows of texts, headings first, as aligned columns or as Markdown."""
    rows = [[cell(text, markdown) for text in row] for row in rows]
    if markdown:
        ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
        return "\n".join(f"| {' | '.join(row)} |" for row in ruled)
    widths = [max(map(display_width, column)) + 2 for column in zip(*rows)]
    lines = ["".join(map(pad, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)
