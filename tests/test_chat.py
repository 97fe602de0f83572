"""chat.py: names, blends and interruptions; the whole conversation is in test_train.py."""
import io
from types import SimpleNamespace

import pytest

import chat
from chat import Conversation, Stream, prompt_within, questions_for, room_for_prompt


def conversation(roles=("Jack", "Count Dracula", "The Mad Hatter")):
    """A Conversation without a model."""
    talk = Conversation.__new__(Conversation)
    talk.config = {"roles": {name: i for i, name in enumerate(roles)}, "profiles": {}, "role_in_prompt": False, "language": "all",
                   "data": "no data here"}
    talk.history, talk.room = [], 32
    talk.model, talk.decoding = None, None
    talk.tokenizer = SimpleNamespace(prompt=lambda *_: [1], stop_ids={0}, decode=lambda ids: "".join(map(chr, ids)))
    talk.turn_to(roles[0])
    return talk


def test_names_need_no_exact_case():
    talk = conversation()
    talk.turn_to("count dracula")
    assert (talk.role, talk.title, talk.prompt_name) == (1, "Count Dracula", "Count Dracula")
    talk.blend("the mad hatter jack .25")
    assert talk.role == [0.25, 0.0, 0.75] and talk.title == "The Mad Hatter + Jack" and talk.prompt_name == "The Mad Hatter"


@pytest.mark.parametrize("text, wrong", [("Jack Count Drakula 0.5", "'Count Drakula'"), ("Jakc Count Dracula 0.5", "'Jakc'"), ("Jack nobody 0.5", "'nobody'")])
def test_a_failed_blend_says_which_name_is_wrong(text, wrong):
    with pytest.raises(ValueError, match=f"unknown role {wrong}"):
        conversation().blend(text)


@pytest.mark.parametrize("text", ["Jack 0.5", "Jack Jack 1.5", "Jack Jack", "0.5"])
def test_a_blend_of_other_than_two_names_and_a_weight_is_explained(text):
    with pytest.raises(ValueError, match="two names and a weight"):
        conversation().blend(text)


def test_a_visitor_is_told_what_to_ask(tmp_path):
    config = {"data": "tiny/rolebench", "language": "all", "splits": ["general", "role_specific"], "generalization": "instruction"}
    questions = questions_for(config, "林黛玉")
    assert len(questions) == 3 and all(chat.script(question) == "Chinese" for question in questions) and questions_for(config, "Nobody") == []
    assert questions_for(config | {"data": "somebody/on-the-hub"}, "林黛玉") == questions_for(config | {"data": str(tmp_path)}, "林黛玉") == []


def test_a_long_conversation_loses_its_oldest_turns():
    """A prompt of 10 tokens, and 10 for each turn."""
    tokenizer = SimpleNamespace(prompt=lambda question, persona, history: [1] * (10 + 10 * len(history)))
    turns = [("a", "b"), ("c", "d"), ("e", "f")]
    assert prompt_within(40, tokenizer, "?", None, turns) == ([1] * 40, turns)
    assert prompt_within(39, tokenizer, "?", None, turns) == ([1] * 30, turns[1:])
    assert prompt_within(5, tokenizer, "?", None, turns) == ([1] * 10, [])


@pytest.mark.parametrize("context, max_length, new_tokens, room", [(512, 256, 64, 192), (512, 1024, 128, 384), (4096, 1024, 128, 896), (512, 128, 128, 128),
                                                                   (512, 256, 300, 212), (512, 256, 600, -88)])
def test_prompt_and_answer_are_no_longer_than_in_training(context, max_length, new_tokens, room):
    backbone = SimpleNamespace(config=SimpleNamespace(max_positions=context))
    assert room_for_prompt(backbone, {"max_length": max_length}, new_tokens) == room


def test_a_role_that_is_told_in_the_prompt_is_told_in_every_prompt(monkeypatch, capsys):
    """The current role's persona, that of a blend's larger part, and of each role that /all asks."""
    personas = []
    talk = conversation()
    talk.config |= {"role_in_prompt": True, "profiles": {"Jack": "A pirate."}}
    talk.tokenizer.prompt = lambda question, persona=None, history=(): personas.append(persona) or [1]
    monkeypatch.setattr(chat, "generate", lambda *_, on_token: None)
    monkeypatch.setattr(chat, "generate_texts", lambda model, tokenizer, prompts, *_: ["x"] * len(prompts))
    talk.answer("?")
    talk.blend("Jack Count Dracula 0.7")
    talk.answer("?")
    talk.ask_all("?")
    jack, dracula, hatter = "You are Jack. A pirate.", "You are Count Dracula.", "You are The Mad Hatter."
    assert personas == [jack, dracula, jack, dracula, hatter]


def test_an_answer_that_was_never_begun_is_not_remembered(monkeypatch, capsys):
    def interrupted(*_, on_token):
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "generate", interrupted)
    talk = conversation()
    talk.answer("Who?")
    assert talk.history == [] and capsys.readouterr().out == "Jack:  ...\n"


def test_ctrl_c_ends_the_answer_and_not_the_conversation(monkeypatch, capsys):
    def interrupted(model, prompts, roles, stop_ids, decoding, on_token):
        on_token([ord("A")])
        on_token([ord("h")])
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "generate", interrupted)
    talk = conversation()
    talk.answer("Who?")
    assert capsys.readouterr().out == "Jack: Ah ...\n" and talk.history == [("Who?", "Ah")]


def test_a_conversation_begins_anew_and_ends_with_the_input(monkeypatch, capsys):
    talk = conversation()
    talk.history = [("Who?", "Jack.")]
    monkeypatch.setattr(chat, "Conversation", lambda args: talk)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"/new\n/roles\n"), "utf8"))
    chat.chat(None)
    lines = ["> /new", "The conversation is forgotten.", "> /roles", "Jack, Count Dracula, The Mad Hatter", ""]
    assert talk.history == [] and capsys.readouterr().out.splitlines()[1:] == lines


def test_a_question_in_another_language_than_the_roles_is_warned_of(monkeypatch, capsys):
    monkeypatch.setattr(chat, "generate", lambda *_, **options: [[]])
    conversation().answer("你是谁？")
    assert "(Jack was trained on English alone: do not expect sense from other questions)" in capsys.readouterr().out


@pytest.mark.parametrize(("language", "warned"), [("zh", False), ("en", True), ("other", False)])
def test_the_language_of_a_run_is_what_it_was_trained_in_not_how_a_name_is_written(monkeypatch, capsys, language, warned):
    monkeypatch.setattr(chat, "generate", lambda *_, **options: [[]])
    monkeypatch.setattr(chat, "generate_texts", lambda model, tokenizer, prompts, *_: ["..."] * len(prompts))
    talk = conversation()
    talk.config["language"] = language
    talk.answer("你是谁？")
    talk.ask_all("你是谁？")
    printed = capsys.readouterr().out
    assert ("trained on English alone: do not expect" in printed) == ("not asked: Jack" in printed) == warned


def test_long_names_do_not_run_into_the_answers(monkeypatch, capsys):
    talk = conversation(("Jack", "The Extraordinarily Long Name"))
    monkeypatch.setattr(chat, "generate_texts", lambda *_: ["Arr.", "Yes."])
    talk.ask_all("Who?")
    assert capsys.readouterr().out == "Jack                           Arr.\nThe Extraordinarily Long Name  Yes.\n"


def test_what_is_printed_moves_no_cursor_and_waits_for_whole_characters(capsys):
    class Bytes:
        def decode(self, ids):
            return bytes(ids).decode("utf8", "replace")
    stream = Stream(Bytes())
    for byte in "a\x1b[2J\x07茶\n".encode():                           # a token may be a part of a character
        stream([byte])
    stream([], end="\n")
    assert capsys.readouterr().out == "a [2J 茶\n\n"
