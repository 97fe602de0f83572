"""Makes the embedded default, `tiny/rolebench` (data) and `tiny/backbone` (a small LLaMA), from `tiny/world.py`.

    python -m tiny.make_tiny                 # both; the backbone takes an hour and a half on a core
    python -m tiny.make_tiny --data          # the data alone, byte for byte what is in the repository
    python train.py --out tiny/run           # the finished run, once the old one is moved away

The weights in the repository were not made in one go. They started from the backbone of an earlier world and were
trained with AdamW for 2,750 steps, while this mixture of conversations was found; then for 5,500 steps as
`tiny/pretrain.py` has it today, 50 minutes on a core, in which the cross-entropy of unseen conversations fell from 0.38
to 0.12 nats per token; then, as training lines and with them the tokenizer changed a little, for 1,200, 3,000 and, at a
third of the learning rate, 300 more.

From random weights, in one go, this command gives a backbone that is as good (9,000 steps, two hours on a busy core).
The demo on it, with one thread and with two: 99 and 94 % of the common facts right, 100 and 100 % of a role's own and
of the town's that it was taught, 4 and 4 % of what only others were taught, 0 and 1 loops; ROUGE-L 38 -> 82 and 80, and
17 -> 85 and 85. Weights are reproduced up to rounding at best: sums in floating point depend on the processor and its
threads.
"""
import argparse
import random
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as BPE

from data import FOLDERS, PROFILES, persona_of
from files import write_json, write_jsonl
from tiny import world
from tiny.facts import aspects_of, bay_of, cast_words, common, language_lines, talk_of
from tiny.pretrain import WORDING, write_backbone
from tiny.voices import new_word
from tokenizer import TEMPLATES

HERE = Path(__file__).parent
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": 3072,
          "hidden_size": 192, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 6,
          "num_key_value_heads": 3, "head_dim": 32, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
          "rope_theta": 10000.0, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
          "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "bfloat16"}


def write_data(folder):
    """Writes RoleBench's layout and the profiles; the same bytes every time."""
    for language in ("en", "zh"):
        for (split, part), lines in language_lines(language).items():
            path = folder / FOLDERS[language].format("instruction") / split / f"{part}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(path, lines)

        path = folder / PROFILES[language]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {name: role["description"] for name, role in world.ROLES.items()
                          if role["language"] == language})


def tokenizer_text():
    """All that the tokenizer should know as few tokens."""
    text = [persona_of(name, {name: role["description"]}) for name, role in world.ROLES.items()]
    for language in ("en", "zh"):
        for lines in language_lines(language).values():
            text += [t for line in lines for t in (line["question"], *line["generated"])]
        for topic, answer, questions in common(language) + bay_of(language):
            text += [topic, answer, *questions]
        for topic, line, questions in aspects_of(language).values():
            text += [topic, line, *questions]
        for line, questions in talk_of(language).values():
            text += [line, *questions]
        text += [world.UNKNOWN[language], *world.ODD_QUESTIONS[language], *WORDING[language].values()] * 10
    rng = random.Random(0)
    text += [" " + new_word(rng) for _ in range(300)] + cast_words()["en"]
    return text + ["user\n", "assistant\n", "system\n"] * 10


def write_tokenizer(folder):
    """A byte-level BPE over all texts, with ChatML's marks; and the backbone's config.json."""
    bpe = BPE(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"),    # a token each
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(tokenizer_text(), trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"], special_tokens=[AddedToken(t, special=True) for t in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    bpe.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "pad_token": SPECIAL[0],
                "eos_token": SPECIAL[2], "chat_template": TEMPLATES["chatml"], "clean_up_tokenization_spaces": False}
    for name, value in (("tokenizer_config", settings), ("config", CONFIG)):
        write_json(folder / f"{name}.json", value)


def main(argv=None):
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", action="store_true", help="the data alone")
    parser.add_argument("--steps", type=int, default=9000, help="training steps of the backbone")
    parser.add_argument("--rows", type=int, default=16, help="conversations of a step")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args(argv)
    write_data(args.out / "rolebench")
    if not args.data:
        (args.out / "backbone").mkdir(parents=True, exist_ok=True)
        write_tokenizer(args.out / "backbone")
        write_backbone(args.out / "backbone", CONFIG, args.steps, args.rows)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    sys.exit(main())
