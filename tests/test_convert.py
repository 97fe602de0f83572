"""tools.convert: conversations and character cards become lines that --data reads."""
import base64
import json
import struct
import zlib

import pytest
from conftest import command

from data import load_profiles, load_samples
from files import write_jsonl
from tools import convert

CARD = {"spec": "chara_card_v2", "spec_version": "2.0", "data": {
    "name": "Grum", "description": "{{char}} is a troll.", "personality": "Slow.", "scenario": "{{user}} wants to\ncross.", "first_mes": "Halt!",
    "mes_example": "<START>\n{{user}}: Who are you?\n{{char}}: {{char}} is {{char}}.\nAnd you?\n{{user}}: A goat.\n{{char}}: Toll.\n"
                   "<START>\n{{char}}: Halt!\n{{user}}: Why?\n{{char}}: Bridge."}}
LINES = [{"role": "Grum", "question": "Who are you?", "answer": "Grum is Grum.\nAnd you?"},
         {"role": "Grum", "question": "A goat.", "answer": "Toll.", "history": [["Who are you?", "Grum is Grum.\nAnd you?"]]},
         {"role": "Grum", "question": "Why?", "answer": "Bridge."}]


def png(**texts):
    """The bytes of a PNG with tEXt chunks."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    chunks = [chunk(b"tEXt", keyword.encode() + b"\0" + text) for keyword, text in texts.items()]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + b"".join(chunks) + chunk(b"IEND", b"")


def card_bytes(card):
    return base64.b64encode(json.dumps(card).encode())


@pytest.mark.parametrize("form", ["v2 json", "v1 json", "png", "v3 png"])
def test_a_card_gives_its_profile_and_its_example_dialogues(tmp_path, form):
    path = tmp_path / "card"
    other = {"data": {"name": "Nobody"}}
    if form == "v3 png":
        path.write_bytes(png(chara=card_bytes(other), ccv3=card_bytes(CARD)))
    elif form == "png":
        path.write_bytes(png(Comment=b"x", chara=card_bytes(CARD)))
    else:
        path.write_text(json.dumps(CARD["data"] if form == "v1 json" else CARD, indent=1))
    lines, profiles, notes = convert.convert([path])
    assert (lines, profiles, notes) == (LINES, {"Grum": "Grum is a troll. Slow. User wants to cross."}, [])


def test_a_card_without_dialogue_says_so(tmp_path):
    path = tmp_path / "card.json"
    path.write_text(json.dumps({"spec": "chara_card_v3", "data": CARD["data"] | {"mes_example": ""}}))
    lines, profiles, notes = convert.convert([path], user="you")
    assert lines == [] and profiles == {"Grum": "Grum is a troll. Slow. you wants to cross."} and "no question with an answer" in notes[0]


CHAT = [("system", "You are Grum."), ("human", "Hi"), ("human", "Who?"), ("gpt", "Grum."), ("human", "Why?"), ("gpt", "Bridge.")]
EXPECTED = [{"role": "Grum", "question": "Hi\nWho?", "answer": "Grum."},
            {"role": "Grum", "question": "Why?", "answer": "Bridge.", "history": [["Hi\nWho?", "Grum."]]}]


@pytest.mark.parametrize("form", ["sharegpt list", "sharegpt jsonl", "messages", "parts", "system key"])
def test_each_answer_of_a_conversation_becomes_a_line(tmp_path, form):
    names = {"human": "user", "gpt": "assistant", "system": "system"}
    record = {"conversations": [{"from": speaker, "value": text} for speaker, text in CHAT]}
    if form == "messages":
        record = {"messages": [{"role": names[speaker], "content": text} for speaker, text in CHAT]}
    elif form == "parts":
        record = {"messages": [{"role": names[speaker], "content": [{"type": "text", "text": text}]} for speaker, text in CHAT]}
    elif form == "system key":
        record = {"conversations": record["conversations"][1:], "system": CHAT[0][1]}
    path = tmp_path / "chat.json"
    path.write_text(json.dumps([record, record]) if form == "sharegpt list" else "\n".join([json.dumps(record)] * 2))
    lines, profiles, notes = convert.convert([path], role="Grum")
    assert (lines, profiles, notes) == (EXPECTED * 2, {"Grum": "You are Grum."}, [])


def test_a_conversation_with_tools_or_images_is_left_out_and_said(tmp_path):
    path = tmp_path / "chat.jsonl"
    tool = {"character": "Grum", "messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "x"}]}
    image = {"character": "Grum", "messages": [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": "x"}]}
    path.write_text(json.dumps(tool) + "\n" + json.dumps(image) + "\n")
    assert convert.convert([path]) == ([], {}, ["2 x no question with an answer in it (of Grum)"])


@pytest.mark.parametrize("name, user", [("Gr\\um", "you"), (r"\1\g<x>", "you"), ("Grum", r"\1")])
def test_a_backslash_in_a_name_is_a_backslash(tmp_path, name, user):
    """As a replacement of re.sub it was a command: a traceback, or another name."""
    path = tmp_path / "card.json"
    path.write_text(json.dumps({"name": name, "description": "{{Char}} knows {{user}}.", "mes_example": "<USER>: Who?\n<BOT>: {{char}}."}))
    assert convert.convert([path], user=user) == ([{"role": name, "question": "Who?", "answer": f"{name}."}], {name: f"{name} knows {user}."}, [])


@pytest.mark.parametrize("data, message", [
    (b'{"messages": [{"role": "user", "content": "q"}]}', "nothing says who answers"), (b'{"a": 1}\nnope', "chat:2: not JSON"),
    (b'{"messages": [{"role": ["user"], "content": "q"}]}', "chat: unhashable"), (b'{"messages": "\\ud800"}', "chat: half of a character"),
    (b'{"messages": [], "role": "A", "x": NaN}', "chat: Out of range float"), (b'{"name": " ", "mes_example": ""}', "chat: nothing says who answers"),
    (b'{"text": "x"}', 'neither "conversations"'), (b"[1]", "a JSON object is expected"), (png(Comment=b"x"), "no character card"),
    (png(chara=b"abc"), "not base64"), (b"\x89PNG", "no character card")])
def test_what_cannot_be_converted_is_named(tmp_path, data, message):
    (tmp_path / "chat").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        convert.convert([tmp_path / "chat"])


def test_the_command_writes_what_data_reads_and_overwrites_nothing(tmp_path):
    (tmp_path / "card.png").write_bytes(png(chara=card_bytes(CARD)))
    (tmp_path / "chat.json").write_text(json.dumps({"character": "Pell", "conversations": [{"from": s, "value": t} for s, t in CHAT[1:]]}))
    out = tmp_path / "mine.jsonl"
    done = command("tools.convert", "--data", tmp_path / "card.png", tmp_path / "chat.json", "--out", out)
    samples = load_samples(out, "en", "train") + load_samples(out, "en", "test")
    assert len(samples) == 5 and {s.role for s in samples} == {"Grum", "Pell"} and load_profiles(out).keys() == {"Grum"}
    assert "5 lines" in done.stdout
    for args, message in ((["--data", tmp_path / "card.png", "--out", out], "exists already"),
                          (["--data", tmp_path, tmp_path / "card.png", "--out", tmp_path / "x"], "takes one folder")):
        assert message in command("tools.convert", *args, ok=False).stderr


def test_a_given_role_answers_only_where_nothing_else_says_who(tmp_path):
    chats = [{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]} | more for more in ({"role": "Pell"}, {})]
    write_jsonl(tmp_path / "chats.jsonl", chats)
    lines, _, _ = convert.convert([tmp_path / "chats.jsonl"], role="Grum")
    assert [line["role"] for line in lines] == ["Pell", "Grum"]


def test_nothing_to_convert_leaves_nothing_behind(tmp_path):
    write_jsonl(tmp_path / "chats.jsonl", [{"messages": [{"role": "user", "content": "Who?"}], "role": "Pell"}])
    done = command("tools.convert", "--data", tmp_path / "chats.jsonl", "--out", tmp_path / "out.jsonl", ok=False)
    assert "nothing here can be converted: 1 x no question with an answer in it (of Pell)" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["chats.jsonl"]
