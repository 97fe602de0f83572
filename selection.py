"""Choosing among lines: what is held out for the test, which roles, how many lines of each.

A line is anything with `role`, `question`, `answers`, `history`, and where languages matter `language` and `split`.
Two questions are near-identical when their sets of character trigrams overlap by more than SIMILAR (Jaccard index).
Near-identical questions are never on both sides of a split into training and test.
"""
import difflib
import hashlib
import json
import random
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import replace

TEST_SHARE = 0.1
SIMILAR = 0.7
LOOKS_ALIKE = 0.85                      # difflib's ratio of two role names


# ------------------------------------------------------------------------------------------------ held out for the test
def normalise(text):
    """`text` in lower case, without punctuation, with single spaces."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[\W_]+", " ", text).split())


def trigrams(text):
    """The set of character trigrams of a normalised text, with a space at each end."""
    padded = f" {normalise(text)} "
    return {padded[i:i + 3] for i in range(max(1, len(padded) - 2))}


def similar_pairs(sets):
    """Index pairs of sets whose Jaccard similarity is above SIMILAR, without comparing every pair.

    Such sets have more than SIMILAR |s| elements in common, so that they share one of the |s| - floor(SIMILAR |s|)
    rarest elements of each (prefix filtering, Chaudhuri et al. 2006).
    """
    frequency = Counter(element for s in sets for element in s)
    seen_with = defaultdict(list)                                        # {element: earlier sets whose prefix has it}
    for i, s in enumerate(sets):
        rarest_first = sorted(s, key=lambda element: (frequency[element], element))
        prefix = rarest_first[:len(s) - int(SIMILAR * len(s))]
        candidates = {j for element in prefix for j in seen_with[element]}
        for j in sorted(candidates):
            if len(s & sets[j]) > SIMILAR * len(s | sets[j]):
                yield i, j
        for element in prefix:
            seen_with[element].append(i)


def group_lines(lines):
    """Lists of line indices that must stay on one side: near-identical questions, or turns of one conversation."""
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


# ---------------------------------------------------------------------------------------------------------------- roles
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


def choose_roles(samples, subset=""):
    """{name: id} in order of first appearance; subset: only these names, as `split_names` reads them, or, for a number,
    the first n.

    Raises ValueError for a name that no sample has.
    """
    names = list(dict.fromkeys(s.role for s in samples))
    if not names:
        raise ValueError("the data have no training line")
    if subset.strip().isdigit():
        names = names[:int(subset)]
    elif subset.strip():
        names = list(dict.fromkeys([role_name(name, names) for name in split_names(subset)]))
    if not names:
        raise ValueError(f"role_subset {subset!r} leaves no role")
    return {name: i for i, name in enumerate(names)}


def split_names(text):
    """The names in a text: between commas, or a list in JSON, for names that have commas or are numbers."""
    if not text.strip().startswith("["):
        return [name.strip() for name in text.split(",")]
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not is_texts(names):
        raise ValueError(f"role_subset {text!r} is no list of names in JSON, such as [\"2\", \"Anne, Queen\"]")
    return names


def is_texts(value):
    """Whether a value of JSON is a list of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def role_name(name, roles):
    """`name` as it is among `roles`, whatever its case; ValueError suggests the nearest names."""
    if name in roles:
        return name
    same = [known for known in roles if known.casefold() == name.strip().casefold()]
    if len(same) == 1:
        return same[0]
    near = difflib.get_close_matches(name, roles, n=3, cutoff=0.3)
    advice = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(roles)}"
    raise ValueError(f"unknown role {name!r}; {advice}")


def role_id(name, roles):
    """The id of a role; see `role_name`."""
    return roles[role_name(name, roles)]


def roles_by_language(samples):
    """{language: its roles, in the order in which they occur}."""
    roles = {}
    for s in samples:
        roles.setdefault(s.language, {})[s.role] = None
    return {language: list(names) for language, names in roles.items()}


def other_roles(samples, distance=1):
    """For each sample the role `distance` places after its own among those of its language.

    None where the language has no more than `distance` roles, so that distances 1, 2, 3 never name a role twice.
    """
    roles = roles_by_language(samples)
    others = []
    for s in samples:
        names = roles[s.language]
        other = names[(names.index(s.role) + distance) % len(names)]
        others.append(other if distance < len(names) else None)
    return others


# ---------------------------------------------------------------------------------------------------- some of the lines
def some_of_each(samples, n, seed):
    """n random samples of each role in each split, one from each n-th part of its lines, so that a file sorted by topic
    contributes every topic. In the samples' order; all samples of a role that has at most n."""
    rng = random.Random(f"{seed}/subset")
    places = {}
    for i, s in enumerate(samples):
        places.setdefault((s.role, s.split), []).append(i)
    chosen = []
    for of_role in places.values():
        parts = min(n, len(of_role))
        for part in range(parts):
            first = part * len(of_role) // parts
            end = (part + 1) * len(of_role) // parts
            chosen.append(of_role[rng.randrange(first, end)])
    return [samples[i] for i in sorted(chosen)]


def spread(items, limit):
    """At most `limit` of a list's items, evenly spread; 0: all."""
    n = min(limit or len(items), len(items))
    return [items[i * len(items) // n] for i in range(n)]


def subsample(samples, limit):
    """At most `limit` samples of each split, evenly spread over the file and thereby over the roles; 0: all."""
    chosen = []
    for split in dict.fromkeys(s.split for s in samples):
        chosen += spread([s for s in samples if s.split == split], limit)
    return chosen


def role_shots(samples, n):
    """{role: n of its own (question, answer) pairs, evenly spread over its samples}: examples for a prompt."""
    pairs = {}
    for s in samples:
        if not s.history:
            pairs.setdefault(s.role, []).append((s.question, s.answers[0]))
    return {role: tuple(spread(of_role, n)) for role, of_role in pairs.items()}


def with_shots(samples, shots):
    """The samples with their role's shots, {role: pairs}, as earlier turns of the conversation."""
    return [replace(s, history=shots.get(s.role, ()) + s.history) for s in samples]
