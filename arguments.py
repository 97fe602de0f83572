"""Reads a configuration, from JSON files and the command line, into the keys of `Config`."""
from console import Parser, one_line

import argparse
import difflib
import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

from config import KEYS, Config
from files import ROOT, FileError, read_json
from hycora_layer import AdapterConfig

LONGER = ("epochs", "max_steps")        # what --resume may change


def convert(value, kind):
    """`value`, from JSON or the command line, as a key's type; ValueError, KeyError or TypeError if it is not."""
    # a flag, in either case; null in JSON and "none" on the command line stand for no choice
    text = str(value).strip().lower()
    if kind is bool:
        return {"true": True, "false": False}[text]
    if kind == bool | None:
        return {"true": True, "false": False, "none": None}[text]

    # true, false and null of JSON are values of flags alone
    if value is None or isinstance(value, bool):
        raise ValueError

    # a whole number: 3.0 is one
    if kind is int:
        if not float(value).is_integer():
            raise ValueError
        return int(float(value))

    # names, as a list or separated by commas
    if kind == tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(part.strip() for part in parts if part.strip())

    # one of a few words
    if get_args(kind) and value not in get_args(kind):
        raise ValueError(f"choose {', '.join(get_args(kind))}")
    if kind is str and isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)                     # role_subset's names
    return kind(value) if kind in (str, float) else value


def parse_values(values, origin):
    """{key: value} with each value of its key's type; ValueError names `origin`, the key and what is wrong."""
    parsed = {}
    for key, value in values.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise FileError(f"{origin}: there is no key {key!r}{hint}")
        try:
            parsed[key] = convert(value, KEYS[key])
        except Exception as e:                           # whatever a wrong type or an unknown word raises
            choices = f"; {e}" if str(e).startswith("choose") else ""
            raise FileError(f"{origin}: {key} cannot be {one_line(repr(value), 60)}{choices}") from None

    try:
        Config(**parsed).validate()                                      # the defaults pass, so it is one of these
    except ValueError as e:
        raise FileError(f"{origin}: {e}") from None
    return parsed


def read_config(path, before=()):
    """The keys of a JSON file. "extends" names a file beside it whose keys it changes; keys may be grouped in
    objects, whose names say where the values come from. before: the files that extend this one."""
    path = Path(path)
    values = read_json(path, "a JSON object of keys")
    inherited = {}
    if "extends" in values:
        other = values.pop("extends")
        before = (*before, path.resolve())
        if not isinstance(other, str) or (path.parent / other).resolve() in before:
            raise FileError(f"{path}: \"extends\" has to name another file")
        inherited = read_config(path.parent / other, before)

    own = {}
    for key, value in values.items():
        own |= value if isinstance(value, dict) else {key: value}
    return inherited | parse_values(own, path)


def add_keys(parser):
    """Gives a parser an option for every key, with its comment in the source as the help."""
    source = inspect.getsource(AdapterConfig) + inspect.getsource(Config)
    comments = dict(re.findall(r"^    (\w+): .*?# +(.+)$", source, re.M))
    defaults = {field.name: field.default for field in fields(Config)}

    for name, kind in KEYS.items():
        choices = "; ".join(get_args(kind)) if isinstance(defaults[name], str) else ""
        text = f"{comments.get(name, '')} {choices} (default: {defaults[name]})".strip()
        more = {"nargs": "?", "const": "true"} if kind in (bool, bool | None) else {}
        flags = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        parser.add_argument(*flags, dest=name, default=argparse.SUPPRESS, metavar="VALUE",
                            help=text.replace("%", "%%"), **more)


def parse_args(argv):
    """({key: value}, run folder to resume or None) of a command line; it overrides --config. With --resume there can
    only be keys of LONGER."""
    parser = Parser(description="Train a Hyper Model. Without --model or --config: the demo, configs/tiny.json.")
    parser.add_argument("--config", help="a JSON file of keys")
    parser.add_argument("--resume", help="a run folder to go on with, under its own config")
    add_keys(parser)
    given = vars(parser.parse_args(argv))
    config = given.pop("config")
    resume = given.pop("resume")
    for name, value in (("--resume", resume), ("--config", config)):
        if value == "":
            raise ValueError(f"{name} is empty")
    if resume:
        if config or not given.keys() <= set(LONGER):
            raise ValueError("--resume takes everything from the run's config.json: no other key goes with it than "
                             "--epochs or --max-steps")
        return parse_values(given, "command line"), Path(resume)

    if config:
        values = read_config(config)
    elif "model" in given:
        values = {}
    else:
        values = read_config(ROOT / "configs/tiny.json")
        if "data" in given:
            del values["language"]                       # that of the demo's data
    if "epochs" in given:
        values.pop("max_steps", None)                    # the file's, which would win
    values |= parse_values(given, "command line")
    if not values.get("model") or not values.get("data"):
        raise ValueError("both --model and --data are needed")
    return values, None
