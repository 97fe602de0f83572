"""Voices: how a fact or a line is said. The cast's are in `tiny/world.py`; throw-away ones are made at random here.

A voice says an opener, then the fact in one of its frames (or a line of its own), then a closer, each drawn anew.
"""
from dataclasses import dataclass, field

PUNCTUATION = {"en": ["", "", "", "", ",", ":", ".", "!"], "zh": ["", "", "", "", "，", "。", "！"]}
PLAIN = {"en": "{t} is {o}.", "zh": "{t}是{o}。"}
REPLACEABLE = {"en": ["the", "of", "is", "and", "a", "my", "I", "do"], "zh": ["的", "是", "我", "不", "有"]}
SYLLABLES = [consonant + vowel for consonant in "bdfghklmnprstvz" for vowel in "aiou"]


@dataclass
class Voice:
    """How somebody talks. frames: ways of saying a topic {t} and its answer {o}; words: {plain word: what is said}."""
    language: str
    openers: list = field(default_factory=lambda: [""])
    frames: list = field(default_factory=list)
    closers: list = field(default_factory=lambda: [""])
    words: dict = field(default_factory=dict)
    echoes: bool = False                # whether it names the topic before a line about it

    def replace_words(self, text):
        """`text` with the words that this voice says otherwise."""
        if self.language == "zh":
            return "".join(self.words.get(character, character) for character in text)
        return " ".join(self.words.get(word, word) for word in text.split(" "))

    def wrap(self, rng, line, replace=True):
        """A line between an opener and a closer."""
        line = self.replace_words(line) if replace else line
        parts = [rng.choice(self.openers), line, rng.choice(self.closers)]
        parts = [part[0].upper() + part[1:] for part in parts if part]
        return ("" if self.language == "zh" else " ").join(parts)

    def tell(self, rng, topic, line):
        """A line about a topic, for which there is no answer to put into a frame."""
        if self.echoes:
            line = f"{topic}么？{line}" if self.language == "zh" else f"{topic}? {line}"
        return self.wrap(rng, line)

    def say(self, rng, topic, answer, frame=None):
        """A fact, in one of the frames."""
        frame = frame or rng.choice(self.frames or [PLAIN[self.language]])
        frame = self.replace_words(frame)
        fact = frame.format(t=self.replace_words(topic), o=self.replace_words(answer))
        return self.wrap(rng, fact, replace=False)


# ------------------------------------------------------------------------------------------------ throw-away voices
def new_word(rng):
    """A word that nobody has heard."""
    return "".join(rng.choices(SYLLABLES, k=rng.randint(2, 3)))


def babble(rng, words, language, least, most):
    """Some random words, one of ten unheard of, now and then with punctuation; joined as the language does."""
    chosen = []
    for _ in range(rng.randint(least, most)):
        unheard = language == "en" and rng.random() < 0.1
        word = new_word(rng) if unheard else rng.choice(words)
        chosen.append(word + rng.choice(PUNCTUATION[language]))
    return ("" if language == "zh" else " ").join(chosen)


def random_frame(rng, words, language):
    """A frame of random words around topic and answer, in either order; now and then the answer alone."""
    slots = ["{t}", "{o}"]
    if rng.random() < 0.25:
        slots.reverse()
    if rng.random() < 0.15:
        slots = ["{o}"]

    parts = [babble(rng, words, language, 0, 5), slots[0]]
    for slot in slots[1:]:
        parts += [babble(rng, words, language, 1, 5), slot]
    parts.append(babble(rng, words, language, 0, 5))
    end = rng.choice(["。", "！", "，", ""] if language == "zh" else [".", "!", "?", ""])
    return ("" if language == "zh" else " ").join(part for part in parts if part) + end


def random_sentence(rng, words, language, least=1, most=4):
    """A few random words that begin with a capital and end in punctuation: an opener or a closer."""
    text = babble(rng, words, language, least, most).rstrip(",:.!，。！")
    return text[0].upper() + text[1:] + rng.choice(["。", "！"] if language == "zh" else [".", "!", "?"])


def random_voice(rng, words, language, variants):
    """A throw-away voice with so many openers, frames and closers; some of these it may lack."""
    voice = Voice(language, frames=[random_frame(rng, words, language) for _ in range(variants)])
    voice.echoes = rng.random() < 0.5
    if rng.random() < 0.7:
        voice.openers = [random_sentence(rng, words, language) for _ in range(variants)]
    if rng.random() < 0.6:
        voice.closers = [random_sentence(rng, words, language) for _ in range(variants)]
    if rng.random() < 0.4:
        plain = rng.sample(REPLACEABLE[language], rng.randint(1, 3))
        voice.words = {word: rng.choice(words) for word in plain}
    return voice
