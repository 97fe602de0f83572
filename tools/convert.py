"""Other people's files as data for `--data`: conversations, character cards, the authors' preprocessed RoleBench.

    python -m tools.convert --data chats.json --role Grum --out mine.jsonl      ShareGPT or OpenAI messages
    python -m tools.convert --data grum.png pell.json --out mine.jsonl          character cards V1 to V3
    python -m tools.convert --data FOLDER --out DIR                             the authors' files (convert_authors.py)

    {"conversations": [{"from": "human" or "gpt" or "system", "value"}]}        ShareGPT
    {"messages": [{"role": "user" or "assistant" or "system", "content"}]}      OpenAI
    {"data": {"name", "description", "mes_example", ...}}                       a card; in a PNG as tEXt ccv3 or chara

Each answer of a conversation becomes a line, the turns before it its "history". What describes the role (a card's
texts, the first system message) goes into NAME.profiles.json beside NAME.jsonl.
"""
from console import Parser, counted, one_line_errors

import json
from collections import Counter
from pathlib import Path

from files import FileError, claimed, read_jsonl, reading, write_json, write_jsonl
from tools.character_card import card_in_png, read_card
from tools.convert_authors import convert as convert_authors

FORMS = 'a conversation ("conversations" or "messages"), or a character card (with "name")'
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def read_records(path):
    """[(place, dict)] of a PNG card, a JSON object or list, or a JSONL file. ValueError where it is none of them."""
    data = path.read_bytes()
    if data.startswith(b"\x89PNG"):
        data = card_in_png(data, path)
    try:
        with reading(path, "JSON"):
            whole = json.loads(data)
    except FileError:
        placed = list(read_jsonl(path))
    else:
        records = whole if isinstance(whole, list) else [whole]
        placed = [(f"{path}[{i}]" if len(records) > 1 else str(path), record) for i, record in enumerate(records)]
    for place, record in placed:
        with reading(place, FORMS):
            if not isinstance(record, dict):
                raise ValueError("a JSON object is expected")
            json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf8")       # can it be written back?
    return placed


def text_of(content):
    """A message's text: itself, or the texts of its parts; None if it has other parts (images, say)."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        return "\n".join(parts) if all(isinstance(part, str) for part in parts) else None
    return content if isinstance(content, str) else None


def conversation(record):
    """[(speaker, text)] of a ShareGPT or OpenAI record; None if a turn is not of user, assistant or system.

    ValueError for a record of neither form.
    """
    messages = record.get("conversations", record.get("messages"))
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError('neither "conversations", nor "messages", nor a character card\'s "name"')
    turns = [("system", record["system"])] if isinstance(record.get("system"), str) else []
    for message in messages:
        speaker = SPEAKERS.get(message.get("from", message.get("role")))
        text = text_of(message.get("value", message.get("content")))
        if speaker is None or text is None:
            return None
        turns.append((speaker, text))
    return turns


def exchanges(turns):
    """Yields (question, answer, history) for each answer; what one speaker says in several turns is joined."""
    history = []
    question = ""
    answer = ""
    for speaker, text in [*turns, ("user", "")]:
        if speaker == "user" and answer:
            if question:                                                 # without a question it is a greeting
                yield question, answer, list(history)
                history.append([question, answer])
            question = answer = ""
        if speaker == "user":
            question = f"{question}\n{text}".strip()
        elif speaker == "assistant":
            answer = f"{answer}\n{text}".strip()


def interpret(record, role, user):
    """(name, profile, [turns of a dialogue]) of a card or a conversation. ValueError for anything else."""
    card = record.get("data", record)
    is_chat = "conversations" in record or "messages" in record
    if not is_chat and isinstance(card, dict) and isinstance(card.get("name"), str):
        name, profile, dialogues = read_card(card, user)
    else:
        turns = conversation(record)
        name = record.get("role") or record.get("character") or role
        profile = next((text.strip() for speaker, text in turns or () if speaker == "system"), "")
        dialogues = [turns or []]
    if not isinstance(name, str) or not name.strip():
        raise ValueError("nothing says who answers here; --role NAME does")
    return name.strip(), profile, dialogues


def convert(paths, role=None, user="User"):
    """(lines, {role: profile}, notes to print) of files. ValueError names what cannot be read, and where."""
    lines, profiles, notes = [], {}, Counter()
    for place, record in [placed for path in paths for placed in read_records(Path(path))]:
        with reading(place, FORMS):
            name, profile, dialogues = interpret(record, role, user)
        found = []
        for turns in dialogues:
            for question, answer, history in exchanges(turns):
                line = {"role": name, "question": question, "answer": answer}
                found.append(line | ({"history": history} if history else {}))
        lines += found
        if profile and profiles.setdefault(name, profile) != profile:
            notes[f"another description of {name} than the first is not used"] += 1
        if not found:
            notes[f"no question with an answer in it (of {name})"] += 1
    return lines, profiles, [f"{count} x {note}" for note, count in notes.items()]


@one_line_errors("tools.convert")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, nargs="+", help="files, or the folder of the authors' files")
    parser.add_argument("--role", help="who answers in conversations that do not say it")
    parser.add_argument("--user", default="User", help="what a card's {{user}} becomes")
    parser.add_argument("--out", required=True, help="a new JSONL file; for the authors' files a new folder")
    args = parser.parse_args()
    if any(Path(path).is_dir() for path in args.data):
        if len(args.data) > 1 or args.role:
            raise ValueError("--data takes one folder, of the authors' files, or files; their lines name the roles")
        return convert_authors(args.data[0], args.out)

    out, profiles_out = Path(args.out), Path(args.out).with_suffix(".profiles.json")
    with claimed(out, profiles_out):
        lines, profiles, notes = convert(args.data, args.role, args.user)
        if not lines:
            raise ValueError(f"{', '.join(args.data)}: nothing here can be converted: {'; '.join(notes) or 'no line'}")
        write_jsonl(out, lines)
        write_json(profiles_out, profiles)
    notes.append(f"{out}: {counted(len(lines), 'line')}; {profiles_out}: {counted(len(profiles), 'description')}")
    print("\n".join(notes))


if __name__ == "__main__":
    main()
