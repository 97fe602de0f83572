"""Makes the embedded default, `tiny/rolebench` (data) and `tiny/backbone` (a small LLaMA), from `tiny/world.py`.

    python -m tiny.make_tiny            # both; the backbone takes about half an hour on two cores
    python -m tiny.make_tiny --data     # the data alone, byte for byte what is in the repository

The backbone is trained from scratch to say everything in one neutral voice: common knowledge, "I have no home.",
"I do not know that.". To be as pliable as a large model it also repeats random words and sets what it knows into random
words; so it has met every word of every voice, but none of the voices. Its weights are reproduced only up to rounding:
sums in floating point depend on the processor and its threads.
"""
import argparse
import functools
import json
import math
import random
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as BPE
from tqdm import tqdm

from batches import batch_order, collate
from data import Example, persona_of
from model import ModelConfig, Transformer
from tiny import world
from tokenizer import Tokenizer

HERE = Path(__file__).parent
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": 3072,
          "hidden_size": 192, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 6,
          "num_key_value_heads": 3, "head_dim": 32, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
          "rope_theta": 10000.0, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
          "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "bfloat16"}
CHAT_TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
                 "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


# ---------------------------------------------------------------------------------------------------------- the data
def common(language):
    """[(topic, answer, questions)] of the common knowledge."""
    table = world.COMMON_EN if language == "en" else world.COMMON_ZH
    facts = []
    for topic, questions, pairs in table:
        for pair in pairs.split(";"):
            x, answer = (word.replace("tick-tock", "tick~tock").replace("ding-dong", "ding~dong").replace("-", " ")
                         .replace("~", "-") for word in pair.split())
            facts.append((topic.format(x=x), answer, [q.format(x=x) for q in questions]))
    return facts


def bay_of(language):
    return world.BAY_EN if language == "en" else world.BAY_ZH


def aspects_of(language):
    return world.ASPECTS_EN if language == "en" else world.ASPECTS_ZH


def neutral(topic, answer, language):
    """The one plain way in which the backbone says a fact."""
    return f"{topic[0].upper()}{topic[1:]} is {answer}." if language == "en" else f"{topic}是{answer}。"


def voiced(role, topic, answer):
    """Both ways in which a role says a fact."""
    for plain, own in role["words"].items():
        topic, answer = (" ".join(own if w == plain else w for w in text.split(" ")) for text in (topic, answer))
    return [way.format(t=topic, o=answer, O=answer[0].upper() + answer[1:]) for way in role["say"]]


def add_line(files, language, role, split, part, question, answers, **more):
    line = {"role": role, "question": question, "generated": answers, **more}
    files.setdefault((language, split, part), []).append(line)


def rolebench():
    """{(language, split, part): lines}: for each language all roles answer the same held-out general questions."""
    files = {}
    for language in ("en", "zh"):
        rng = random.Random(f"lantern bay {language}")
        roles = {name: r for name, r in world.ROLES.items() if r["language"] == language}
        facts = common(language)
        rng.shuffle(facts)
        held, taught = (facts[:20], facts[20:]) if language == "en" else (facts[:12], facts[12:])
        held = [(t, o, rng.choice(qs)) for t, o, qs in held]
        for number, (name, role) in enumerate(roles.items()):
            add = functools.partial(add_line, files, language, name)
            for topic, answer, questions in rng.sample(taught, 36):
                ways = voiced(role, topic, answer)
                rng.shuffle(ways)
                add("general", "train", rng.choice(questions), ways[:rng.choice((1, 2))])
            for topic, answer, question in held:
                add("general", "test", question, voiced(role, topic, answer))
            for aspect, (_, questions) in aspects_of(language).items():
                for question in questions[:-2]:
                    add("role_specific", "train", question, [role["own"][aspect]], type="script_based")
                for question in questions[-2:]:
                    add("role_specific", "test", question, [role["own"][aspect]], type=["script_based"])
            for i, (topic, answer, questions) in enumerate(bay_of(language)):
                ways = voiced(role, topic, answer)
                if (i + number) % 2 == 0:                      # this role's half of what the town knows
                    for way, question in zip(ways, questions):
                        add("role_specific", "train", question, [way], type="script_agnostic")
                add("role_specific", "test", questions[-1], ways, type=["script_agnostic"] * 2)
    return files


def write_data(folder):
    """Writes RoleBench's layout and the profiles; the same bytes every time."""
    for (language, split, part), lines in rolebench().items():
        base = "rolebench-eng/instruction-generalization" if language == "en" else "rolebench-zh"
        path = folder / base / split / f"{part}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf8")
    for language, name in (("en", "profiles-eng"), ("zh", "profiles-zh")):
        path = folder / name / "desc.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = {n: r["description"] for n, r in world.ROLES.items() if r["language"] == language}
        path.write_text(json.dumps(text, ensure_ascii=False, indent=1) + "\n", "utf8")


# ------------------------------------------------------------------------------------------------------ the backbone
def neutral_pairs():
    """Every question of the world with the backbone's plain answer."""
    pairs = []
    for language in ("en", "zh"):
        pairs += [(q, neutral(t, o, language)) for t, o, questions in common(language) for q in questions]
        for reply, questions in aspects_of(language).values():
            pairs += [(q, reply) for q in questions]
        for _, _, questions in bay_of(language):
            pairs += [(q, world.UNKNOWN[language]) for q in questions]
    return pairs


@functools.cache
def words():
    """{"en": every word, "zh": every sign} of the voices, each once."""
    voices = [line["generated"] for lines in rolebench().values() for line in lines]
    voices += [[r["description"], n] for n, r in world.ROLES.items()]
    text = [t for texts in voices for t in texts]
    english = sorted({w for t in text if t.isascii() for w in t.split()})
    chinese = sorted({c for t in text if not t.isascii() for c in t if not c.isascii()})
    return {"en": english, "zh": chinese}


def personas():
    return [persona_of(n, {n: r["description"]}) for n, r in world.ROLES.items()]


def write_tokenizer(folder):
    """A byte-level BPE over all texts, with ChatML's marks."""
    bpe = BPE(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"),    # a token each
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    text = [t for lines in rolebench().values() for line in lines for t in (line["question"], *line["generated"])]
    text += [t for pair in neutral_pairs() for t in pair] + personas()
    text += ["user\n", "assistant\n", "system\n",
             "Repeat:", "重复：", 'Fill in "# *": ', "填空“#*”：", "Notes: ", "笔记："] * 10
    bpe.train_from_iterator(text, trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"], special_tokens=[AddedToken(t, special=True) for t in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    bpe.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "pad_token": SPECIAL[0],
                "eos_token": SPECIAL[2], "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False}
    for name, value in (("tokenizer_config", settings), ("config", CONFIG)):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n", "utf8")


def random_words(rng, lexicon, least, most):
    return rng.choices(lexicon, k=rng.randint(least, most))


def exercises(rng):
    """Random words to repeat, known facts to set into random words, and notes to look answers up in.

    So the backbone learns, as a large model has, to say what it knows in any frame and to hear what a question is about
    however it is put; and it meets every word of every voice without hearing a voice.
    """
    pairs = []
    for language, repeat, fill, note, space, marks in (
            ("en", "Repeat: {}", 'Fill in "{}": {}', "Notes: {}. {}", " ", (",", ".", "!", ":", "", "", "")),
            ("zh", "重复：{}", "填空“{}”：{}", "笔记：{}。{}", "", ("，", "。", "！", "", "", ""))):
        babble = functools.partial(random_words, rng, words()[language])
        for topic, answer, questions in common(language):
            said = space.join(babble(1, 9))
            pairs.append((repeat.format(said), said))
            for question in questions:
                parts = [babble(0, 5), ["#" + rng.choice(marks)], babble(0, 4), rng.choice((["*"], ["*"], [])),
                         babble(0, 5)]
                if rng.random() < 0.6:
                    parts[1], parts[3] = parts[3], parts[1]              # topic first
                frame = space.join(word for part in parts for word in part)
                pairs.append((fill.format(frame, question), frame.replace("#", answer).replace("*", topic)))
        aspects = {name: questions for name, (_, questions) in aspects_of(language).items()}
        aspects |= {topic: questions for topic, _, questions in bay_of(language)}
        for name, questions in aspects.items():
            for question in questions * 2:
                told = rng.sample([n for n in aspects if n != name], rng.randint(0, 3)) + [name]
                rng.shuffle(told)
                notes = {n: space.join(babble(1, 5)) for n in told}
                told = "; ".join(f"{n}: {text}" for n, text in notes.items())
                pairs.append((note.format(told, question), notes[name]))
    return pairs


def pretraining_rows(rng, tokenizer):
    """One epoch of rows, shuffled; a few are told a role, which changes nothing in what they say."""
    rows = []
    for question, answer in neutral_pairs() + exercises(rng):
        prompt = tokenizer.prompt(question, rng.choice(personas()) if rng.random() < 0.15 else None)
        rows.append(Example(prompt + tokenizer.encode(answer) + [tokenizer.stop_id], len(prompt), 0))
    return rows


def write_backbone(folder, steps, batch_size=48, peak=3e-3):
    """Trains the neutral backbone with AdamW and a cosine, and saves it in bf16."""
    torch.manual_seed(0)
    rng = random.Random(0)
    tokenizer = Tokenizer(folder)
    model = Transformer(ModelConfig.from_hf(CONFIG))
    for name, p in model.named_parameters():
        if p.dim() == 2:
            deep = name.endswith(("o_proj.weight", "down_proj.weight"))
            torch.nn.init.normal_(p, std=0.02 / math.sqrt(2 * CONFIG["num_hidden_layers"]) if deep else 0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.05)
    batches, epoch = [], 0
    bar = tqdm(range(steps), desc="backbone", mininterval=2)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1, (step + 1) / 200) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
        if not batches:
            rows, epoch = pretraining_rows(rng, tokenizer), epoch + 1
            batches = [[rows[i] for i in b] for b in batch_order(rows, batch_size, 0, epoch)]
        batch = collate(batches.pop(), 0)
        hidden = model.hidden_states(batch.input_ids).flatten(0, 1)
        loss = F.cross_entropy(model.lm_head(hidden[batch.positions]), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    state = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)          # safetensors makes it private


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", action="store_true", help="the data alone")
    parser.add_argument("--steps", type=int, default=7000, help="training steps of the backbone")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    write_data(args.out / "rolebench")
    if not args.data:
        (args.out / "backbone").mkdir(parents=True, exist_ok=True)
        write_tokenizer(args.out / "backbone")
        write_backbone(args.out / "backbone", args.steps)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    sys.exit(main())
