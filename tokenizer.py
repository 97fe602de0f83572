"""Text to token ids and back: tokenizer files, and the chat templates that write a conversation as one text.

A chat template is a Jinja text, a model's own or one of TEMPLATES, and the same text serves training here and inference
elsewhere (`tools.export` writes it as chat_template.jinja). jinja2 comes with torch.
"""
import datetime
import json
import re
import types
from pathlib import Path

from files import read_json, reading

# ---------------------------------------------------------------------------------------------------------- templates
LLAMA2 = ("{% for m in messages %}{% if m['role'] == 'user' %}[INST]"
          "{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}"
          "<<SYS>>\n{{ messages[0]['content'] }}\n<</SYS>>\n\n{% endif %}{{ m['content'] }}[/INST]"
          "{% elif m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}")
TEMPLATES = {
    # "plain", "llama2" and "chatglm2" follow the authors' code, without its spaces around an answer; where it puts a
    # description (only their shared LoRA has one), docs/choices.md says how it differs
    "plain": "{% for m in messages %}{% if m['role'] == 'user' %}User: {{ m['content'] }}\nAssistant:"
             "{% elif m['role'] == 'system' %}{{ m['content'] }}\n"
             "{% else %}{{ m['content'] }}{{ eos_token }}\n{% endif %}{% endfor %}",
    "llama2": LLAMA2,
    "llama2-bos": "<s>" + LLAMA2,                                        # the authors' code has no bos
    "chatglm2": "{% for m in messages %}{% if m['role'] == 'user' %}"
                "[Round {{ loop.index0 // 2 + 1 }}]\n\n问："
                "{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n"
                "{% endif %}{{ m['content'] }}\n\n答："
                "{% elif m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}\n\n{% endif %}{% endfor %}",
    "chatml": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
              "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama3": "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
              "{{ m['content'] }}<|eot_id|>{% endfor %}"
              "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
}
TODAY = datetime.date(2024, 7, 26)      # for templates that give the date (Llama 3.2): prompts must not change daily
CUT = "\ufdd0"                          # a code point that is no character: marks where typed text is cut


def find_template(folder, settings, name="auto"):
    """The Jinja text of a template's name; auto: the model's own chat template, "plain" where it has none.

    ValueError for a name that does not exist.
    """
    if name != "auto":
        if name not in TEMPLATES:
            raise ValueError(f"template is {name!r}; choose auto or one of {', '.join(TEMPLATES)}")
        return TEMPLATES[name]
    if settings.get("model_type") == "chatglm":
        return TEMPLATES["chatglm2"]

    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text("utf8")
    own = settings.get("chat_template")
    if isinstance(own, list):                                            # several, by name
        own = {template["name"]: template["template"] for template in own}.get("default")
    return own or TEMPLATES["plain"]


def compile_template(text):
    """A jinja2 template, in the environment that transformers renders chat templates in. ValueError if it is broken."""
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise ValueError("prompts are written by chat templates, which need: pip install jinja2") from None

    def raise_exception(message):
        raise TemplateError(message)

    def to_json(value, **options):
        return json.dumps(value, **{"ensure_ascii": False} | options)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": TODAY.strftime}
    try:
        return environment.from_string(text)
    except TemplateError as e:
        raise ValueError(f"the model's chat template cannot be used ({e}); choose a --template: "
                         f"{', '.join(TEMPLATES)}") from None


def template_with_default(text, system=None):
    """A template's text for other engines: with our fixed date, opening with `system` if no system turn is given."""
    before = ""
    if "date_string" in text:
        before += f'{{%- set date_string = "{TODAY:%d %b %Y}" -%}}\n'
    if system:
        content = json.dumps(system, ensure_ascii=False)
        before += (f"{{%- if messages[0]['role'] != 'system' -%}}"
                   f"{{%- set messages = [{{'role': 'system', 'content': {content}}}] + messages -%}}{{%- endif -%}}\n")
    return before + text


# ---------------------------------------------------------------------------------------------------------- tokenizer
class Tokenizer:
    """A Hugging Face `tokenizer.json`, or else a SentencePiece `tokenizer.model`, with a chat template.

    Text that people typed never becomes a special token: "<|im_end|>" in a question stays plain text.
    Raises FileNotFoundError without tokenizer files, ValueError for an unusable template or a missing eos token.
    """
    def __init__(self, folder, template="auto"):
        with reading(folder, "a tokenizer's files"):
            self.read(Path(folder), template)

    def read(self, folder, template):
        """Reads the files of a model folder."""
        settings = {}
        for file in ("config.json", "generation_config.json", "tokenizer_config.json"):
            if (folder / file).is_file():
                settings |= read_json(folder / file)
        self.inner = read_tokenizer(folder, settings)
        self.typed_special = special_token_pattern(self.inner.special_texts)

        # the eos token: an id, a list of ids, or a text; the text wins, since the order of a list has no meaning
        ids = settings.get("eos_token_id")
        if ids is None:
            ids = []
        elif not isinstance(ids, list):
            ids = [ids]
        eos = token_text(settings.get("eos_token"))
        if not eos and not ids:
            raise ValueError("neither tokenizer_config.json nor config.json names an eos token")
        if not all(type(token_id) is int and token_id >= 0 for token_id in ids):
            raise ValueError(f"eos_token_id is {ids}: ids are 0, 1, 2, ...")
        self.eos_id = self.special(eos) if eos else ids[0]

        # the template, and the texts that it may ask for
        self.template_text = find_template(folder, settings, template)
        if template != "auto":
            for token in re.findall(r"<\|\w+\|>|^<s>", self.template_text):
                self.special(token)
        self.template = compile_template(self.template_text)
        self.token_texts = {"bos_token": token_text(settings.get("bos_token")) or "",
                            "eos_token": eos or self.inner.id_to_token(self.eos_id)}

        # what ends an answer in training, and what ends one in generation
        self.stop_id = self.find_stop()
        self.stop_ids = {self.stop_id, self.eos_id, *ids}

    def special(self, token):
        """The id of a special token; ValueError if this tokenizer does not have it (a template of another family)."""
        token_id = self.inner.token_to_id(token)
        if token_id is None:
            raise ValueError(f"the tokenizer has no token {token!r}; choose another --template")
        return token_id

    def find_stop(self):
        """The id of the first special token that the template writes after an answer; eos if there is none."""
        _, answer, after = self.render([("user", "Q"), ("assistant", "ANSWER")]).rpartition("ANSWER")
        if not answer:
            return self.eos_id
        found = [(after.index(text), -len(text), text) for text in self.inner.special_texts if text in after]
        return self.special(min(found)[2]) if found else self.eos_id

    # ----------------------------------------------------------------------------------------------- text and ids
    def cut(self, text):
        """`text` with a CUT inside of everything in it that would be read as a special token."""
        return self.typed_special.sub(lambda found: found[0] + CUT, text.replace(CUT, ""))

    def encode(self, text):
        """Token ids of a text, with no special token among them."""
        return self.encode_batch([text])[0] if text else []

    def encode_batch(self, texts):
        """Token ids of each text, with no special token among them."""
        pieces = [self.cut(text).split(CUT) for text in texts]
        flat = [piece for of_text in pieces for piece in of_text]
        encoded = iter(self.inner.encode_batch(flat, add_special_tokens=False))

        ids = []
        for of_text in pieces:
            ids.append([])
            for _ in of_text:
                ids[-1] += next(encoded).ids
        return ids

    def decode(self, ids):
        """The text of token ids, without special tokens and surrounding whitespace."""
        return self.inner.decode(list(ids), skip_special_tokens=True).strip()

    # ---------------------------------------------------------------------------------------------------- prompts
    def render(self, turns, add_generation_prompt=False):
        """The text of a conversation of (role, text) turns, special tokens included."""
        messages = [{"role": role, "content": self.cut(text)} for role, text in turns]
        return self.template.render(messages=messages, add_generation_prompt=add_generation_prompt, **self.token_texts)

    def render_prompt(self, turns):
        """`render`, up to where the model's answer begins. ValueError if the template refuses the conversation."""
        from jinja2 import TemplateError
        try:
            return self.render(turns, add_generation_prompt=True)
        except TemplateError as e:
            raise ValueError(f"the model's chat template refuses this conversation: {e}") from None

    def sample_prompt(self):
        """The text of a sample prompt, which a run records to detect a later change of the model's template."""
        return self.render([("user", "Who are you?")], add_generation_prompt=True)

    def prompt(self, question, persona=None, history=()):
        """Token ids of a prompt, the same that the template gives in any other engine.

        persona: a text that says which role to play, the system turn; history: (question, answer) pairs of the
        conversation so far. If a template refuses system turns, the persona goes before the first question.
        """
        turns = []
        for earlier_question, answer in history:
            turns += [("user", earlier_question), ("assistant", answer)]
        turns.append(("user", question))
        try:
            text = self.render_prompt([("system", persona), *turns] if persona else turns)
        except ValueError:
            if not persona:
                raise
            turns[0] = ("user", f"{persona}\n\n{turns[0][1]}")
            text = self.render_prompt(turns)

        # template and typed text as one text, as other engines encode it, but cut where typed text is unsafe
        ids = list(self.inner.prefix_ids)
        for piece in text.split(CUT):
            ids += self.inner.encode(piece, add_special_tokens=False).ids
        return ids


def token_text(token):
    """The text of a token in tokenizer_config.json, which may be an object; None if there is none."""
    return token["content"] if isinstance(token, dict) else token


def special_token_pattern(texts):
    """A pattern of the first character of each occurrence of a special token's text, overlapping ones too."""
    rests = {}
    for text in sorted(texts):
        if len(text) > 1 and not text.isspace():
            rests.setdefault(text[0], []).append(re.escape(text[1:]))
    return re.compile("|".join(f"{re.escape(first)}(?={'|'.join(rest)})" for first, rest in rests.items()) or "(?!)")


def read_tokenizer(folder, settings):
    """The tokenizer of a model folder, in the interface of the `tokenizers` package.

    special_texts: the texts of the tokens that a template may write; prefix_ids: the ids before every prompt.
    """
    if (folder / "tokenizer.json").is_file():
        import tokenizers
        inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        inner.no_padding()
        inner.no_truncation()
        inner.special_texts = [token.content for token in inner.get_added_tokens_decoder().values()]
        inner.prefix_ids = []
        return inner
    if (folder / "tokenizer.model").is_file():
        is_chatglm = settings.get("model_type") == "chatglm"
        return SentencePiece(folder / "tokenizer.model", CHATGLM_SPECIAL if is_chatglm else ())
    raise FileNotFoundError(f"{folder} has neither tokenizer.json nor tokenizer.model")


CHATGLM_SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")         # their ids follow the vocabulary


class SentencePiece:
    """A `tokenizer.model` (ChatGLM2, Vicuna) with the methods of the `tokenizers` package that are used here."""
    def __init__(self, path, special_tokens):
        try:
            import sentencepiece
        except ImportError:
            raise ValueError(f"{path} needs a package that is not installed: pip install sentencepiece") from None
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.size = self.model.vocab_size()
        self.special_tokens = special_tokens
        self.special_texts = [self.model.id_to_piece(i) for i in range(self.size) if self.model.is_control(i)]
        self.prefix_ids = [self.token_to_id(token) for token in ("[gMASK]", "sop") if token in special_tokens]

    def token_to_id(self, token):
        """The id of a token, or None."""
        if token in self.special_tokens:
            return self.size + self.special_tokens.index(token)
        token_id = self.model.piece_to_id(token)
        return None if token_id == self.model.unk_id() else token_id

    def id_to_token(self, token_id):
        """The text of a token of the vocabulary."""
        return self.model.id_to_piece(token_id)

    def encode(self, text, add_special_tokens=False):
        """An object whose `ids` are the text's, its special tokens read as such."""
        ids = []
        for piece in re.split(f"({'|'.join(map(re.escape, self.special_texts)) or '(?!)'})", text):
            ids += [self.token_to_id(piece)] if piece in self.special_texts else self.model.encode(piece)
        return types.SimpleNamespace(ids=ids)

    def encode_batch(self, texts, add_special_tokens=False):
        """`encode` for each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids, skip_special_tokens=True):
        """The text of token ids, control tokens left out."""
        return self.model.decode([i for i in ids if i < self.size and not self.model.is_control(i)])
