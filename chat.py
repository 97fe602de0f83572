"""Talking to the characters of a run.

    python chat.py                                               the finished run in the repository
    python chat.py --run runs/demo --role "NAME"
"""
from console import Parser, counted, display_width, one_line_errors, pad, printable

import re
import sys
from contextlib import suppress
from pathlib import Path

from checkpoint import load_run
from data import load_test_samples, run_persona
from files import local_path
from generate import add_decoding_arguments, decoding_from_args, generate, generate_texts
from selection import role_name, spread

FINISHED_RUN = Path(__file__).parent / "tiny/run"
HELP = ("/role NAME changes the character, /roles lists them, /all QUESTION asks all who speak its language, "
        "/blend A B 0.3 mixes two (seven tenths A), /new forgets the conversation, /quit ends.")


def script(text):
    """"Chinese" for a text with Chinese characters in it, else "English"."""
    return "Chinese" if re.search("[\u4e00-\u9fff]", text) else "English"


def room_for_prompt(backbone, config, new_tokens):
    """How many tokens a prompt may have. With its answer it should be no longer than the examples of training (or,
    where these are short, twice the answer): in longer conversations the demo's voices end in nonsense."""
    length = max(config["max_length"], 2 * new_tokens)
    return min(length, backbone.config.max_positions) - new_tokens


def prompt_within(room, tokenizer, question, persona, history):
    """(prompt, the turns of `history` that it has): without the oldest, as far as `room` tokens demand it."""
    prompt = tokenizer.prompt(question, persona, history)
    while len(prompt) > room and history:
        history = history[1:]
        prompt = tokenizer.prompt(question, persona, history)
    return prompt, list(history)


class Stream:
    """Prints text as its tokens come, holding back a character whose bytes are not all there yet."""
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.ids = []
        self.text = ""

    def __call__(self, tokens, end=""):
        self.ids += tokens
        text = self.tokenizer.decode(self.ids)
        if end or not text.endswith("\ufffd"):
            print(printable(text[len(self.text):]), end=end, flush=True)
            self.text = text


class Conversation:
    """A chat with a run's characters: who answers, and the turns so far, as many as the context holds."""
    def __init__(self, args):
        """args: the command line. ValueError for an unknown role or a context too short for an answer."""
        self.model, self.tokenizer, self.config = load_run(args.run, args.device, args.compile)
        self.decoding = decoding_from_args(args, self.config["language"], self.config["max_new_tokens"])
        self.history = []                               # [(question, answer), ...]

        self.room = room_for_prompt(self.model.backbone, self.config, self.decoding.max_new_tokens)
        if self.room < 1:
            raise ValueError(f"--max-new-tokens {self.decoding.max_new_tokens} leaves no room for a question: the "
                             f"model reads at most {self.model.backbone.config.max_positions}")
        self.turn_to(args.role or next(iter(self.config["roles"])))

    def language_of(self, name):
        """The language that a role was trained in, by the run's, or as its name and description are written in it; None
        where that is not known."""
        if self.config["language"] == "other":
            return None
        if self.config["language"] == "zh":
            return "Chinese"
        return script(name + self.config["profiles"].get(name, ""))      # as "en" is also the default

    def turn_to(self, name):
        """The role `name` answers from now on; ValueError suggests the nearest names."""
        self.title = role_name(name, self.config["roles"])
        self.role = self.config["roles"][self.title]                     # an id, or weights that blend roles
        self.prompt_name = self.title

    def blend(self, text):
        """"A B 0.3": a mixture of two role embeddings, or of a method's other per-role weights. Raises ValueError."""
        roles = self.config["roles"]
        *words, weight = text.split()
        if len(words) < 2 or not re.fullmatch(r"0?\.\d+|[01](\.0*)?", weight):
            raise ValueError("/blend takes two names and a weight from 0 to 1, such as /blend "
                             f"{' '.join([*roles, *roles][:2])} 0.5")
        pair = self.two_names(words)

        share = float(weight)
        weights = [0.0] * len(roles)
        weights[roles[pair[0]]] += 1 - share
        weights[roles[pair[1]]] += share
        self.role = weights
        self.title = " + ".join(pair)
        self.prompt_name = pair[1] if share > 0.5 else pair[0]           # for methods with the role in the prompt

    def two_names(self, words):
        """The two roles that a list of words names; ValueError names the unknown one."""
        roles = self.config["roles"]
        complaints = []
        for i in range(1, len(words)):                                   # names may contain spaces
            try:
                return role_name(" ".join(words[:i]), roles), role_name(" ".join(words[i:]), roles)
            except ValueError as error:
                complaints.append(error)

        # if one of the two is right, the error is about the other
        for i, complaint in enumerate(complaints, 1):
            if " ".join(words[:i]).casefold() in map(str.casefold, roles):
                raise complaint
        raise complaints[0]

    def answer(self, question):
        """Streams the answer, and remembers it; the oldest turns are dropped where the prompt would be too long."""
        language = self.language_of(self.prompt_name)
        if language not in (None, script(question)):
            print(f"({self.title} was trained on {language} alone: do not expect sense from other questions)")

        persona = run_persona(self.prompt_name, self.config)
        prompt, history = prompt_within(self.room, self.tokenizer, question, persona, self.history)
        if len(prompt) > self.room:
            raise ValueError(f"a question of {len(prompt)} tokens is too long: there is room for {self.room}")
        if forgotten := len(self.history) - len(history):
            print(f"(the conversation is long: {counted(forgotten, 'old turn')} forgotten)")

        stream = Stream(self.tokenizer)
        print(f"{self.title}: ", end="", flush=True)
        end = "\n"
        try:
            generate(self.model, [prompt], [self.role], self.tokenizer.stop_ids, self.decoding, on_token=stream)
        except KeyboardInterrupt:                                        # ends the answer, not the conversation
            end = " ...\n"
        stream([], end=end)
        if stream.text:
            self.history = [*history, (question, stream.text)]

    def ask_all(self, question):
        """Prints the answer of every role that was trained in the question's language, if known; one mixed batch,
        outside the conversation."""
        roles = self.config["roles"]
        names = [name for name in roles if self.language_of(name) in (None, script(question))]
        others = [name for name in roles if name not in names]
        prompts = [self.tokenizer.prompt(question, run_persona(name, self.config)) for name in names]
        role_ids = [roles[name] for name in names]
        texts = generate_texts(self.model, self.tokenizer, prompts, role_ids, self.decoding) if names else []
        width = max(map(display_width, roles))
        for name, text in zip(names, texts):
            print(f"{pad(name, width)}  {printable('(no room for an answer)' if text is None else text)}")
        if others:
            print(f"(not asked: {', '.join(others)}, trained on {self.language_of(others[0])} alone)")


def follow(conversation, line):
    """Handles a line: a command, or a question to the current role."""
    command, _, rest = line.partition(" ")
    rest = rest.strip()

    # commands by themselves
    if command == "/roles":
        print(", ".join(conversation.config["roles"]))
    elif command == "/new":
        conversation.history = []
        print("The conversation is forgotten.")

    # commands about somebody or something
    elif command == "/all" and rest:
        conversation.ask_all(rest)
    elif command == "/role" and rest:
        conversation.turn_to(rest)
        kept = " The earlier turns stay in the conversation; /new forgets them." if conversation.history else ""
        print(f"Now talking to {conversation.title}.{kept}")
    elif command == "/blend" and rest:
        conversation.blend(rest)
        print(f"Now talking to {conversation.title}. Training never saw a mixture: near 0 and 1 a voice holds, in the "
              f"middle sentences may break.")

    # anything else
    elif command.startswith("/"):
        print(f"({HELP})")
    elif line:
        conversation.answer(line)


def questions_for(config, role, n=3):
    """A few test questions of a role, a first thing to ask; none where the run's data are not on this machine, or a
    file so large that finding its test lines takes a while."""
    path = local_path(config["data"])
    if path is None or path.is_file() and path.stat().st_size > 200_000:
        return []
    with suppress(ValueError, OSError):                                  # the data may have changed since
        tests = load_test_samples(config["data"], config["language"], config["splits"],
                                  generalization=config["generalization"], roles=[role])
        return [s.question for s in spread([s for s in tests if not s.history], n)]
    return []


def read_line():
    """The next line of standard input; from a pipe or a file it is printed too, as a terminal does while one types."""
    if sys.stdin.isatty():
        return input("> ").strip()
    line = input().strip()
    print(f"> {printable(line)}")
    return line


def chat(args):
    """Reads questions from standard input and streams the answers, until /quit or the end of input."""
    if sys.stdin is None:
        raise ValueError("the standard input is closed: there is nobody to talk to")
    conversation = Conversation(args)
    sys.stdin.reconfigure(errors="replace")                              # a stray byte does not end the conversation
    with suppress(ImportError):                                          # where there is one, arrow keys edit the line
        import readline  # noqa: F401
    print(f"You are talking to {conversation.title}. {HELP}")
    if questions := questions_for(conversation.config, conversation.prompt_name):
        print(f"You could ask: {' '.join(map(printable, questions))}")

    while True:
        try:
            line = read_line()
            if line.split(" ")[0] == "/quit":
                return
            follow(conversation, line)
        except ValueError as error:
            print(f"({error})")
        except (EOFError, KeyboardInterrupt):
            print()
            return


def parse_args(argv):
    """The command line."""
    parser = Parser(description="Talk to the characters of a run.")
    parser.add_argument("--run", default=FINISHED_RUN, help="a run folder of train.py; default: tiny/run")
    parser.add_argument("--role", help="who answers first; default: the first role")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="slow to start, then faster; CUDA graphs on a GPU")
    add_decoding_arguments(parser)
    return parser.parse_args(argv)


@one_line_errors("chat.py")
def main():
    """The command."""
    chat(parse_args(sys.argv[1:]))


if __name__ == "__main__":
    main()
