"""A person's own lines: which of them to hold out for the test, and what in them looks like a slip.

A line is anything with `role`, `question`, `answers` and `history`. Two questions are near-identical when their sets of
character trigrams overlap by more than SIMILAR (Jaccard: common over all). What is near-identical goes to one side.
"""
import difflib
import hashlib
import re
import unicodedata
from collections import Counter, defaultdict

TEST_SHARE = 0.1
SIMILAR = 0.7
LOOKS_ALIKE = 0.85                      # difflib's ratio of two role names


def normalise(text):
    """`text` in lower case, without punctuation, with single blanks."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[\W_]+", " ", text).split())


def trigrams(text):
    """The set of character trigrams of a normalised text, a blank on either side of it."""
    padded = f" {normalise(text)} "
    return {padded[i:i + 3] for i in range(max(1, len(padded) - 2))}


def similar_pairs(sets):
    """Index pairs of sets whose Jaccard similarity is above SIMILAR, without comparing every pair.

    Sets that overlap so much share one of their rarest elements: among the |s| - ceil(SIMILAR |s|) + 1 rarest of each
    is a common one (prefix filtering, Chaudhuri et al. 2006).
    """
    frequency = Counter(element for s in sets for element in s)
    seen_with = defaultdict(list)                                        # {element: earlier sets whose prefix has it}
    for i, s in enumerate(sets):
        rarest_first = sorted(s, key=lambda element: (frequency[element], element))
        prefix = rarest_first[:len(s) - int(SIMILAR * len(s)) + 1]
        candidates = {j for element in prefix for j in seen_with[element]}
        for j in sorted(candidates):
            if len(s & sets[j]) > SIMILAR * len(s | sets[j]):
                yield i, j
        for element in prefix:
            seen_with[element].append(i)


def group_lines(lines):
    """Lists of line indices that belong on one side: near-identical questions, and the exchanges of a conversation."""
    group = list(range(len(lines)))                                      # a forest: each line's parent

    def root(i):
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    # equal questions first, so that the sets below are of distinct questions
    first_with = {}
    for i, line in enumerate(lines):
        group[root(i)] = root(first_with.setdefault(normalise(line.question), i))
    distinct = list(first_with.values())
    for a, b in similar_pairs([trigrams(lines[i].question) for i in distinct]):
        group[root(distinct[a])] = root(distinct[b])

    # a line whose history has another line's exchange in it
    exchanges = {(line.role, line.question, answer): i for i, line in enumerate(lines) for answer in line.answers}
    for i, line in enumerate(lines):
        for question, answer in line.history:
            earlier = exchanges.get((line.role, question, answer))
            if earlier is not None:
                group[root(i)] = root(earlier)

    members = defaultdict(list)
    for i in range(len(lines)):
        members[root(i)].append(i)
    return list(members.values())


def hold_out(lines, share=TEST_SHARE):
    """Indices of about a tenth of the lines, for the test: the same ones on every call, whatever the lines' order.

    Whole groups of `group_lines` are taken, in the order of a hash of their questions, as long as they fit into this
    share of the lines and each role keeps a line to learn from. Empty where no group fits.
    """
    room = max(1, round(share * len(lines)))
    left = Counter(line.role for line in lines)                          # lines of each role that stay in training

    def order(members):
        first_question = min(normalise(lines[i].question) for i in members)
        return hashlib.sha256(first_question.encode("utf8", "replace")).digest()

    held = []
    for members in sorted(group_lines(lines), key=order):
        of_role = Counter(lines[i].role for i in members)
        fits = len(held) + len(members) <= room
        if fits and all(of_role[role] < left[role] for role in of_role):
            held += members
            left -= of_role
    return sorted(held)


def look_alikes(names):
    """Pairs of role names of which one may be a misspelling of the other."""
    pairs = []
    names = list(names)
    for i, name in enumerate(names):
        near = difflib.get_close_matches(name.casefold(), [other.casefold() for other in names[:i]], 1, LOOKS_ALIKE)
        if near:
            other = next(other for other in names if other.casefold() == near[0])
            pairs.append((other, name))
    return pairs


def unknown_keys(records, known):
    """{key: number of records that have it} of the keys that nobody reads."""
    counts = Counter(key for record in records for key in record)
    return {key: count for key, count in counts.items() if key not in known}
