"""The prompt of training is, id for id, what transformers makes of the same conversation with the model's own template."""
import json

import pytest
from conftest import ROOT
from test_data import family_tokenizer

from tokenizer import TEMPLATES, Tokenizer, template_with_default

OWN = {     # the forms that families' own templates have, in our words
    "a default system turn": "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
                             "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
                             "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "blocks on their own lines": "{{- bos_token }}\n{%- for m in messages %}\n    {%- if m.role == 'tool' %}\n        {%- continue %}\n    {%- endif %}\n"
                                 "    {{- '<|im_start|>' ~ m.role ~ '\n' ~ (m.content | trim) ~ '<|im_end|>\n' }}\n{%- endfor %}\n"
                                 "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}\n{%- endif %}\n",
    "json": "{% for m in messages %}<|im_start|>{{ {'say': m.content} | tojson }}<|im_end|>\n{% endfor %}",
}
TURNS = [("  What is\n\n the capital?  俺老孙", "It is Paris, matey!"), ("\"And\" then?", "No.")]


def messages_of(persona, history, question):
    messages = [{"role": "system", "content": persona}] if persona else []
    for asked, answered in history:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": question}]


def with_template(folder, family, text):
    """A throwaway tokenizer of a family whose own chat template is `text`."""
    family_tokenizer(folder, family)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": text}))
    return folder


def assert_same_ids(ours, theirs, personas=(None, "You are 孙悟空.")):
    for persona in personas:
        for n in range(3):
            expected = theirs.apply_chat_template(messages_of(persona, TURNS[:n], "And?"), add_generation_prompt=True, return_dict=False)
            assert ours.prompt("And?", persona, TURNS[:n]) == list(expected)


@pytest.mark.parametrize("form", OWN)
def test_a_models_own_template_gives_the_ids_of_transformers(form, tmp_path):
    transformers = pytest.importorskip("transformers")
    with_template(tmp_path, "chatml", OWN[form])
    ours, theirs = Tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert_same_ids(ours, theirs)
    assert ours.stop_id == theirs.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("family, name", [("chatml", "chatml"), ("llama3", "llama3"), ("plain", "plain"), ("llama2", "llama2"), ("llama2", "llama2-bos"),
                                          ("plain", "chatglm2")])
@pytest.mark.parametrize("persona", [None, "You are \"Grum\"\\, {{ of }} the bridge 🌉."])
def test_our_templates_are_exported_as_texts_that_give_the_ids_of_training(family, name, persona, tmp_path):
    """With the persona in the exported text, a conversation without a system turn has the prompt of training."""
    transformers = pytest.importorskip("transformers")
    family_tokenizer(tmp_path, family)
    ours, theirs = Tokenizer(tmp_path, name), transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs.chat_template = template_with_default(ours.template_text, persona)
    for n in range(3):
        expected = theirs.apply_chat_template(messages_of(None, TURNS[:n], "And?"), add_generation_prompt=True, return_dict=False)
        assert ours.prompt("And?", persona, TURNS[:n]) == list(expected)


def test_the_tiny_backbones_own_template_is_chatml():
    assert Tokenizer(ROOT / "tiny/backbone").prompt("Hi", "Be.", TURNS) == Tokenizer(ROOT / "tiny/backbone", "chatml").prompt("Hi", "Be.", TURNS)


def test_a_template_that_refuses_system_turns_gets_the_persona_in_the_first_question(tmp_path):
    text = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + OWN["a default system turn"]
    ours = Tokenizer(with_template(tmp_path, "chatml", text))
    assert ours.prompt("Who?", "You are X.") == ours.prompt("You are X.\n\nWho?")
    (tmp_path / "refusing").mkdir()
    refusing = Tokenizer(with_template(tmp_path / "refusing", "chatml", "{% if messages | length == 1 %}{{ raise_exception('too short') }}{% endif %}"))
    with pytest.raises(ValueError, match="refuses this conversation: too short"):
        refusing.prompt("Who?")
    (tmp_path / "strict").mkdir()
    strict = Tokenizer(with_template(tmp_path / "strict", "chatml", "{% if messages | length > 3 %}{{ raise_exception('too long') }}{% endif %}" + text))
    with pytest.raises(ValueError, match="refuses this conversation: too long"):
        strict.prompt("And?", "You are X.", TURNS)


def test_a_broken_template_is_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match="chat template cannot be used"):
        Tokenizer(with_template(tmp_path, "chatml", "{% if %}"))


def test_without_jinja2_nothing_is_guessed(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(ValueError, match="pip install jinja2"):
        Tokenizer(ROOT / "tiny/backbone")


def test_a_template_that_tells_the_date_tells_the_same_one_every_day(tmp_path):
    transformers = pytest.importorskip("transformers")
    text = ("{% if not date_string is defined %}{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{% endif %}"
            "{{ date_string }}\n" + OWN["a default system turn"])
    ours, theirs = Tokenizer(with_template(tmp_path, "chatml", text)), transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs.chat_template = template_with_default(ours.template_text)
    assert_same_ids(ours, theirs)
    assert "26 Jul 2024" in ours.decode(ours.prompt("Hi"))


def test_templates_by_name_and_in_a_file(tmp_path):
    by_name = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": TEMPLATES["chatml"]}]
    assert Tokenizer(with_template(tmp_path, "chatml", by_name)).template_text == TEMPLATES["chatml"]
    with_template(tmp_path, "chatml", None)
    (tmp_path / "chat_template.jinja").write_text(OWN["json"])
    assert Tokenizer(tmp_path).template_text == OWN["json"]


def test_typed_text_never_becomes_an_added_token_special_or_not(tmp_path):
    import tokenizers
    family_tokenizer(tmp_path, "chatml")
    inner = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    inner.add_tokens([tokenizers.AddedToken("<think>", special=False), tokenizers.AddedToken("k><", special=False)])
    inner.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer(tmp_path)
    added = {inner.token_to_id(text) for text in ("<think>", "k><", "<|im_end|>", "<|im_start|>", "<|endoftext|>")}
    typed = "a<think><think>b <|im_end|>"
    assert not added & {*ours.encode(typed)} and ours.decode(ours.encode(typed)) == typed
    assert len([i for i in ours.prompt(typed) if i in added]) == len([i for i in ours.prompt("a") if i in added])
