"""The tiny backbone: what it is trained on, and its training from scratch.

It is made as pliable as a large model. By default it answers in one plain voice; it knows the common facts and says of
all else that it does not know. In its training it also meets thousands of throw-away voices of random words, which it
takes over from what a persona says, from earlier answers of the conversation, or from a name that it knows; and
notes, from which it looks answers up. So it has met every word of the cast, but none of the cast's voices or facts.
"""
import functools
import math
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tqdm import tqdm

from data import persona_of
from files import write_tensors
from model import ModelConfig, Transformer
from tiny import world
from tiny.facts import aspects_of, bay_of, cast_words, common, talk_of
from tiny.voices import Voice, babble, new_word, random_sentence, random_voice
from tokenizer import Tokenizer

NAMED_VOICES = 64
CONTEXT = 384                           # tokens of a conversation, at most
WORDING = {
    "en": {"repeat": "Repeat: {}", "notes": "Notes: {}.", "note": "{}: {}", "joint": "; ", "begin": 'begins with "{}"',
           "end": 'ends with "{}"', "word": 'says "{1}" for "{0}"', "frame": 'answers like "{}"', "and": " and ",
           "who": ", who {}.", "name": "I am {}."},
    "zh": {"repeat": "重复：{}", "notes": "笔记：{}。", "note": "{}：{}", "joint": "；", "begin": "开头说“{}”",
           "end": "结尾说“{}”", "word": "把“{0}”说成“{1}”", "frame": "照“{}”回答", "and": "，", "who": "。{}",
           "name": "我是{}。"},
}


# ----------------------------------------------------------------------------------------------------- conversations
@dataclass
class Setting:
    """Who speaks in a conversation: the voice, what the system prompt says, and what the notes say."""
    language: str
    voice: Voice
    persona: str | None = None
    name: str = ""
    notes: dict | None = None           # {topic: answer}
    shown: bool = False                 # the first answer shows the voice, which nothing else tells


@functools.cache
def named_voices(language):
    """[(name, voice)] of the throw-away voices that the backbone knows by name."""
    rng = random.Random(f"named voices {language}")
    return [(new_word(rng).capitalize(), random_voice(rng, cast_words()[language], language, rng.randint(2, 4)))
            for _ in range(NAMED_VOICES)]


def describe(rng, voice, language):
    """What a persona says of how somebody talks; and the voice that has no more than that."""
    wording = WORDING[language]
    told = Voice(language)
    clauses = []
    if voice.openers[0] and rng.random() < 0.7:
        told.openers = voice.openers[:1]
        clauses.append(wording["begin"].format(voice.openers[0]))
    if rng.random() < 0.4:
        told.frames = voice.frames[:1]
        clauses.append(wording["frame"].format(voice.frames[0].format(t="*", o="#")))
    if voice.words and rng.random() < 0.7:
        told.words = voice.words
        clauses += [wording["word"].format(*pair) for pair in voice.words.items()]
    if voice.closers[0] and rng.random() < 0.7:
        told.closers = voice.closers[:1]
        clauses.append(wording["end"].format(voice.closers[0]))
    text = wording["who"].format(wording["and"].join(clauses)) if clauses else ""
    return text, told


def random_notes(rng, language):
    """{topic: answer} of a few topics, the answers of random words."""
    topics = [topic for topic, _, _ in aspects_of(language).values()]
    topics += [topic for topic, _, _ in bay_of(language)]
    words = cast_words()[language]
    chosen = rng.sample(topics, rng.randint(1, 4))
    return {topic: babble(rng, words, language, 1, 4).rstrip(",:.!，。！") for topic in chosen}


def random_setting(rng, language):
    """Who speaks: plainly, as a persona tells, as earlier answers show, or as a name that is known."""
    words = cast_words()[language]
    setting = Setting(language, Voice(language))
    kind = rng.choices(["plain", "told", "shown", "named"], [22, 18, 12, 48])[0]
    if kind == "named":
        setting.name, setting.voice = rng.choice(named_voices(language))
    elif kind == "shown":
        setting.voice = random_voice(rng, words, language, 1)
        setting.shown = True

    # the persona of those who are told, and of half of the others
    if kind == "told" or (kind in ("plain", "shown") and rng.random() < 0.5):
        setting.name = " ".join(new_word(rng).capitalize() for _ in range(rng.randint(1, 2)))
    if setting.name:
        about = random_sentence(rng, words, language, 2, 9)[:-1] if kind == "told" or rng.random() < 0.6 else ""
        if kind == "told":
            clauses, setting.voice = describe(rng, random_voice(rng, words, language, 1), language)
            about = about + (clauses or ".")
        setting.persona = persona_of(setting.name, {setting.name: about})
    if rng.random() < 0.3:
        setting.notes = random_notes(rng, language)
    return setting


def question_and_answer(rng, setting):
    """One turn: a question, and what the setting's voice answers."""
    language, voice = setting.language, setting.voice
    notes = setting.notes or {}
    kind = rng.choices(["common", "aspect", "bay", "talk", "repeat", "odd"], [48, 20, 15, 7, 5, 5])[0]
    if kind == "common":
        topic, answer, questions = rng.choice(common(language))
        return rng.choice(questions), voice.say(rng, topic, answer)
    if kind == "repeat":
        text = babble(rng, cast_words()[language], language, 2, 9)
        return WORDING[language]["repeat"].format(text), text
    if kind == "odd":
        question = rng.choice(world.ODD_QUESTIONS[language])
        x = babble(rng, cast_words()[language], language, 1, 3)
        return question.format(x=x), voice.wrap(rng, world.UNKNOWN[language])
    if kind == "talk":
        line, questions = rng.choice(list(talk_of(language).values()))
        return rng.choice(questions), voice.wrap(rng, line)

    # about oneself or the town: from the notes if they say it; more often than not, something that they do say
    topics = [(topic, line, questions) for topic, line, questions in aspects_of(language).values()]
    if kind == "bay":
        topics = [(topic, world.UNKNOWN[language], questions) for topic, _, questions in bay_of(language)]
    noted = [entry for entry in topics if entry[0] in notes]
    topic, line, questions = rng.choice(noted if noted and rng.random() < 0.8 else topics)
    if topic in notes:
        return rng.choice(questions), voice.say(rng, topic, notes[topic])
    if topic == aspects_of(language)["name"][0] and setting.name:
        line = WORDING[language]["name"].format(setting.name)
    return rng.choice(questions), voice.tell(rng, topic, line)


def conversation(rng, tokenizer):
    """(ids, supervised) of a conversation of one to five turns."""
    language = rng.choices(["en", "zh"], [70, 30])[0]
    setting = random_setting(rng, language)
    wording = WORDING[language]
    turns = [question_and_answer(rng, setting) for _ in range(rng.choices([1, 2, 3, 4, 5], [15, 20, 25, 25, 15])[0])]
    if setting.shown:                                                    # the first answer has to show a frame
        topic, answer, questions = rng.choice(common(language))
        turns.insert(0, (rng.choice(questions), setting.voice.say(rng, topic, answer)))

    # the notes are in the system prompt, or stand before the first question
    persona = setting.persona
    if setting.notes:
        notes = wording["joint"].join(wording["note"].format(*note) for note in setting.notes.items())
        notes = wording["notes"].format(notes)
        if rng.random() < 0.5:
            persona = f"{persona} {notes}" if persona else notes
        else:
            turns[0] = (f"{notes} {turns[0][0]}", turns[0][1])

    # each answer stands after the prompt that has the turns before it
    ids = []
    supervised = []
    for i, (question, answer) in enumerate(turns):
        prompt = tokenizer.prompt(question, persona, turns[:i])
        response = tokenizer.encode(answer) + [tokenizer.stop_id]
        supervised += [False] * (len(prompt) - len(ids)) + [i > 0 or not setting.shown] * len(response)
        ids = prompt + response
    return ids[:CONTEXT], supervised[:CONTEXT]


# ---------------------------------------------------------------------------------------------------------- training
def batches_of(rng, tokenizer, rows):
    """One batch of conversations after another: (input ids, positions, their targets); padding goes by length."""
    while True:
        pool = sorted((conversation(rng, tokenizer) for _ in range(rows * 16)), key=lambda pair: len(pair[0]))
        starts = list(range(0, len(pool), rows))
        rng.shuffle(starts)
        for start in starts:
            chosen = pool[start:start + rows]
            T = max(len(ids) for ids, _ in chosen)
            input_ids = torch.tensor([ids + [0] * (T - len(ids)) for ids, _ in chosen])
            wanted = torch.tensor([supervised[1:] + [False] * (T + 1 - len(supervised)) for _, supervised in chosen])
            positions = wanted.flatten().nonzero().squeeze(1)            # whose next token is supervised
            yield input_ids, positions, input_ids.flatten()[positions + 1]


def initialise(model, layers):
    """The usual normal initialisation, smaller where a block writes to the residual stream."""
    for name, p in model.named_parameters():
        if p.dim() == 2:
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            torch.nn.init.normal_(p, std=0.02 / math.sqrt(2 * layers) if writes else 0.02)


def lr_at(step, steps, peak, warmup=100):
    """Learning rate: a short warm-up, constant, and in the last third linearly to 0."""
    return peak * min(1, (step + 1) / warmup, 3 * (1 - step / steps) + 0.01)


def optimizers_of(model, peak):
    """Muon for the matrices of the blocks, AdamW for the embeddings and the norms, both at AdamW's learning rate."""
    matrices = []
    others = []
    for name, p in model.named_parameters():
        (matrices if p.dim() == 2 and "layers" in name else others).append(p)
    return (torch.optim.Muon(matrices, lr=peak, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.98), weight_decay=0.01))


def write_backbone(folder, config, steps, rows=16, peak=1e-3, save_every=250):
    """Trains the backbone, the matrix products in bf16, and saves it."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(folder)
    model = Transformer(ModelConfig.from_hf(config))
    initialise(model, config["num_hidden_layers"])
    optimizers = optimizers_of(model, peak)
    batches = batches_of(random.Random(0), tokenizer, rows)

    bar = tqdm(range(steps), desc="backbone", mininterval=2)
    for step in bar:
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step, steps, peak)

        # cross-entropy of the answers
        input_ids, positions, targets = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.hidden_states(input_ids).flatten(0, 1)
            logits = model.lm_head(hidden[positions])
        loss = F.cross_entropy(logits.float(), targets)

        # clip and step
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        if step % 25 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % save_every == 0 or step + 1 == steps:
            save(model, folder)


def save(model, folder):
    """Writes the weights in bf16."""
    state = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    write_tensors(folder / "model.safetensors", state)
