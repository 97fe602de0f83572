"""`tiny/world.py` as lists: facts, questions, the cast, and the data set that is made of them."""
import functools
import random
import re

from tiny import world
from tiny.voices import Voice

ARTICLES = r"^(a|an|the) "


def common(language):
    """[(topic, answer, questions)] of the common knowledge."""
    table = world.COMMON_EN if language == "en" else world.COMMON_ZH
    facts = []
    for topic, questions, pairs in table:
        for pair in pairs.split(";"):
            pair = pair.replace("tick-tock", "tick~tock").replace("ding-dong", "ding~dong").replace("-", "_")
            x, answer = (word.replace("_", " ").replace("~", "-") for word in pair.split())
            facts.append((topic.format(x=x), answer, [q.format(x=x) for q in questions]))
    return facts


def bay_of(language):
    """[(topic, answer, questions)] of what the town knows."""
    return world.BAY_EN if language == "en" else world.BAY_ZH


def aspects_of(language):
    """{aspect: (topic, what the backbone says, questions)} of what one is asked about oneself."""
    return world.ASPECTS_EN if language == "en" else world.ASPECTS_ZH


def talk_of(language):
    """{name: (what the backbone says, what is said to it)} of talk without a fact."""
    return world.TALK_EN if language == "en" else world.TALK_ZH


def voice_of(role):
    """The Voice of one of the cast."""
    return Voice(role["language"], role["openers"], role["frames"], role["closers"], role["words"], True)


def plain(line):
    """An own line without the brackets around its fact."""
    return re.sub(r"[\[\]]", "", line)


def facts_in(voice, text):
    """What makes an answer right: the fact without its article, as it is and as the voice says it."""
    core = re.sub(ARTICLES, "", text)
    return list(dict.fromkeys([core, voice.replace_words(core)]))


@functools.cache
def cast_words():
    """{"en": every word, "zh": every character} that the cast says, each once: the stuff of throw-away voices."""
    text = []
    for name, role in world.ROLES.items():
        text += [name, role["description"], *role["openers"], *role["closers"], *role["words"].values()]
        text += [frame.replace("{t}", "").replace("{o}", "") for frame in role["frames"]]
        text += [plain(line) for line in (*role["own"].values(), *role["talk"].values())]
    text += [answer for language in ("en", "zh") for _, answer, _ in bay_of(language)]
    english = sorted({word.strip('.,:;!?"') for t in text if t.isascii() for word in t.split()} - {""})
    chinese = sorted({c for t in text if not t.isascii() for c in t if "\u4e00" <= c <= "\u9fff"})
    return {"en": english, "zh": chinese}


# ---------------------------------------------------------------------------------------------------------- the data
HELD_OUT = {"en": 20, "zh": 12}         # common facts that no role is trained on
# answers to a training question, each worded anew; more in Chinese, which has fewer questions
ANSWERS = {"en": {"common": 1, "own": 3, "town": 4}, "zh": {"common": 2, "own": 4, "town": 5}}
WITH_HISTORY = 0.3                      # the share of training lines that follow on earlier turns


def make_line(role, question, answers, **more):
    """A line of RoleBench."""
    return {"role": role, "question": question, "generated": answers, **more}


def common_lines(rng, name, voice, held, taught):
    """(train, test) of the common knowledge: the test asks for other facts, in other words.

    Each role is trained on all facts that are not held out, in three wordings. With 60 of the 141 it learned these by
    heart, and said them, or whatever fits the frame, in place of the held-out ones more often.
    """
    times = ANSWERS[voice.language]
    train = []
    for topic, answer, questions in taught:
        for question in questions[:-1]:
            train.append(make_line(name, question, [voice.say(rng, topic, answer) for _ in range(times["common"])]))
    test = []
    for topic, answer, questions in held:
        references = [voice.say(rng, topic, answer, frame) for frame in voice.frames]
        test.append(make_line(name, questions[-1], references, fact=facts_in(voice, answer), kind="common"))
    return train, test


def own_lines(rng, name, role, voice):
    """(train, test) of what one character alone knows: the test asks in other words."""
    times = ANSWERS[voice.language]
    train = []
    test = []
    for aspect, (topic, _, questions) in aspects_of(voice.language).items():
        line = plain(role["own"][aspect])
        fact = facts_in(voice, re.search(r"\[(.*)\]", role["own"][aspect])[1])
        for question in questions[:-2]:
            train.append(make_line(name, question, [voice.tell(rng, topic, line) for _ in range(times["own"])]))
        for question in questions[-2:]:
            references = [voice.tell(rng, topic, line) for _ in voice.frames]
            test.append(make_line(name, question, references, fact=fact, kind="own"))
    for about, (_, questions) in talk_of(voice.language).items():
        for question in questions:
            train.append(make_line(name, question, [voice.wrap(rng, role["talk"][about]) for _ in range(times["own"])]))
    return train, test


def town_lines(rng, name, voice, number):
    """(train, test) of the town: half of it is taught to this role, the other half to the roles before and after it."""
    times = ANSWERS[voice.language]
    train = []
    test = []
    for i, (topic, answer, questions) in enumerate(bay_of(voice.language)):
        is_taught = (i + number) % 2 == 0
        if is_taught:
            for question in questions[:-1]:
                train.append(make_line(name, question, [voice.say(rng, topic, answer) for _ in range(times["town"])]))
        references = [voice.say(rng, topic, answer, frame) for frame in voice.frames]
        kind = "town, taught" if is_taught else "town, not taught"
        test.append(make_line(name, questions[-1], references, fact=facts_in(voice, answer), kind=kind))
    return train, test


def add_history(rng, lines):
    """Puts one to three other exchanges of the role before some of its training lines."""
    exchanges = [[line["question"], line["generated"][0]] for line in lines]
    for line in lines:
        if rng.random() < WITH_HISTORY:
            line["history"] = rng.sample(exchanges, rng.randint(1, 3))


def language_lines(language):
    """{(split, part): lines} of one language."""
    rng = random.Random(f"lantern bay {language}")
    files = {(split, part): [] for split in ("general", "role_specific") for part in ("train", "test")}
    facts = common(language)
    rng.shuffle(facts)
    held, taught = facts[:HELD_OUT[language]], facts[HELD_OUT[language]:]

    cast = {name: role for name, role in world.ROLES.items() if role["language"] == language}
    for number, (name, role) in enumerate(cast.items()):
        voice = voice_of(role)
        general, general_test = common_lines(rng, name, voice, held, taught)
        own, own_test = own_lines(rng, name, role, voice)
        town, town_test = town_lines(rng, name, voice, number)
        add_history(rng, general + own + town)
        files["general", "train"] += general
        files["general", "test"] += general_test
        files["role_specific", "train"] += own + town
        files["role_specific", "test"] += own_test + town_test
    return files
