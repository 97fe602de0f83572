"""Text to token ids and back: tokenizer files, and the prompt templates that models were trained with."""
import json
import re
import types
from dataclasses import dataclass
from pathlib import Path


# ---------------------------------------------------------------------------------------------------------- templates
@dataclass(frozen=True)
class Template:
    """How a question becomes a prompt. `persona` is the first turn's pattern when the prompt describes the role."""
    turn: str
    persona: str
    stop: str | None = None                  # the token that ends an answer; None: the tokenizer's eos
    between: str = ""                        # what stands between an answer's stop token and the next turn
    prefix: tuple[str, ...] = ()             # special tokens before everything


CHATML = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
LLAMA3 = ("<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
          "<|start_header_id|>assistant<|end_header_id|>\n\n")
TEMPLATES = {
    # "plain", "llama2" and "chatglm2" follow the authors' code, without its blanks around an answer
    "plain": Template("User: {question}\nAssistant:", "{persona}\nUser: {question}\nAssistant:", between="\n"),
    "llama2": Template("[INST]{question}[/INST]", "[INST]<<SYS>>\n{persona}\n<</SYS>>\n\n{question}[/INST]"),
    "llama2-bos": Template("[INST]{question}[/INST]", "[INST]<<SYS>>\n{persona}\n<</SYS>>\n\n{question}[/INST]",
                           prefix=("<s>",)),                             # the authors' code has no bos
    "chatglm2": Template("[Round {round}]\n\n问：{question}\n\n答：", "[Round 1]\n\n问：{persona}\n{question}\n\n答：",
                         between="\n\n", prefix=("[gMASK]", "sop")),
    "chatml": Template(CHATML, "<|im_start|>system\n{persona}<|im_end|>\n" + CHATML, "<|im_end|>", "\n"),
    "llama3": Template(LLAMA3, "<|start_header_id|>system<|end_header_id|>\n\n{persona}<|eot_id|>" + LLAMA3,
                       "<|eot_id|>", prefix=("<|begin_of_text|>",)),
}
CHAT_TEMPLATE_MARKS = {"chatml": "<|im_start|>", "llama3": "<|start_header_id|>", "llama2": "[INST]"}


def choose_template(folder, settings):
    """The name of the template that fits a model folder: the one whose mark its chat template contains."""
    if settings.get("model_type") == "chatglm":
        return "chatglm2"
    chat_template = settings.get("chat_template")
    if not chat_template and (folder / "chat_template.jinja").is_file():
        chat_template = (folder / "chat_template.jinja").read_text("utf8")
    for name, mark in CHAT_TEMPLATE_MARKS.items():
        if mark in str(chat_template):
            return name
    return "plain"


# ---------------------------------------------------------------------------------------------------------- tokenizer
class Tokenizer:
    """A Hugging Face `tokenizer.json`, or else a SentencePiece `tokenizer.model`, with a prompt template.

    Text that people typed never becomes a special token: "<|im_end|>" in a question stays plain text.
    Raises FileNotFoundError without tokenizer files, ValueError for an unknown template or a missing eos token.
    """
    def __init__(self, folder, template="auto"):
        folder = Path(folder)
        settings = {}
        for file in ("config.json", "generation_config.json", "tokenizer_config.json"):
            if (folder / file).is_file():
                settings |= json.loads((folder / file).read_text("utf8"))
        self.inner = read_tokenizer(folder, settings)

        if template == "auto":
            template = choose_template(folder, settings)
        if template not in TEMPLATES:
            raise ValueError(f"template is {template!r}; choose auto or one of {', '.join(TEMPLATES)}")
        self.template = TEMPLATES[template]

        # the eos token: an id, a list of ids, or a text; the text wins, since the order of a list means nothing
        ids = settings.get("eos_token_id")
        if ids is None:
            ids = []
        elif not isinstance(ids, list):
            ids = [ids]
        eos = settings.get("eos_token")
        if isinstance(eos, dict):
            eos = eos["content"]
        if not eos and not ids:
            raise ValueError(f"{folder}: neither tokenizer_config.json nor config.json names an eos token")
        self.eos_id = self.special(eos) if eos else ids[0]

        # what ends an answer in training, and what ends one in generation
        self.stop_id = self.special(self.template.stop) if self.template.stop else self.eos_id
        self.stop_ids = {self.stop_id, self.eos_id, *ids}

    def special(self, token):
        """The id of a special token; ValueError if this tokenizer does not have it (a template of another family)."""
        token_id = self.inner.token_to_id(token)
        if token_id is None:
            raise ValueError(f"the tokenizer has no token {token!r}; choose another --template")
        return token_id

    def encode(self, text):
        """Token ids of a text, with no special token among them."""
        return self.inner.encode(text, add_special_tokens=False).ids if text else []

    def encode_batch(self, texts):
        """Token ids of each text."""
        return [encoding.ids for encoding in self.inner.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids):
        """The text of token ids, without special tokens and blanks around it."""
        return self.inner.decode(list(ids), skip_special_tokens=True).strip()

    def prompt(self, question, persona=None, history=()):
        """Token ids of a prompt.

        persona: a text that says which role to play, put before the first turn; history: (question, answer) pairs of
        the conversation so far.
        """
        ids = [self.special(token) for token in self.template.prefix]
        for i, (earlier_question, answer) in enumerate(history):
            ids += self.turn(earlier_question, persona, i)
            ids += self.encode(answer) + [self.stop_id] + self.encode(self.template.between)
        return ids + self.turn(question, persona, len(history))

    def turn(self, question, persona, index):
        """Token ids of one question, up to where its answer begins."""
        pattern = self.template.persona if persona and index == 0 else self.template.turn
        return self.render(pattern, question=question, persona=persona, round=str(index + 1))

    def render(self, pattern, **fields):
        """Fills {fields}; only the special tokens written in the pattern itself become special tokens."""
        ids = []
        text = ""
        for piece in re.split(r"(<\|\w+\|>|\{\w+\})", pattern):
            if piece.startswith("<|"):
                ids += self.encode(text) + [self.special(piece)]
                text = ""
            elif piece.startswith("{"):
                text += fields[piece[1:-1]]
            else:
                text += piece
        return ids + self.encode(text)


def read_tokenizer(folder, settings):
    """The tokenizer of a model folder, in the interface of the `tokenizers` package."""
    if (folder / "tokenizer.json").is_file():
        import tokenizers
        inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True
        return inner
    if (folder / "tokenizer.model").is_file():
        is_chatglm = settings.get("model_type") == "chatglm"
        return SentencePiece(folder / "tokenizer.model", CHATGLM_SPECIAL if is_chatglm else ())
    raise FileNotFoundError(f"{folder} has neither tokenizer.json nor tokenizer.model")


CHATGLM_SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")         # their ids follow the vocabulary


class SentencePiece:
    """A `tokenizer.model` (ChatGLM2, Vicuna) behind those methods of the `tokenizers` package that are used here."""
    def __init__(self, path, special_tokens):
        try:
            import sentencepiece
        except ImportError:
            raise ValueError(f"{path} needs a package that is not installed: pip install sentencepiece") from None
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.size = self.model.vocab_size()
        self.special_tokens = special_tokens

    def token_to_id(self, token):
        """The id of a token, or None."""
        if token in self.special_tokens:
            return self.size + self.special_tokens.index(token)
        token_id = self.model.piece_to_id(token)
        return None if token_id == self.model.unk_id() else token_id

    def encode(self, text, add_special_tokens=False):
        """An object whose `ids` are the text's."""
        return types.SimpleNamespace(ids=self.model.encode(text))

    def encode_batch(self, texts, add_special_tokens=False):
        """`encode` for each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids, skip_special_tokens=True):
        """The text of token ids, control tokens left out."""
        return self.model.decode([i for i in ids if i < self.size and not self.model.is_control(i)])
