"""BLEU, ROUGE, distinct-n, loops and the bootstrap, without torch: answers against their references.

BLEU-4 and ROUGE are the paper's: sentence BLEU with nltk's smoothing method 3 and the F of the `rouge` package, best
reference per metric, Chinese by character.
"""
import math
import re
from collections import Counter, defaultdict

import numpy as np

METRICS = ("bleu4", "rouge1", "rouge2", "rougeL")


# --------------------------------------------------------------------------------------------------------------- words
def tokenize_words(text, language):
    """Chinese: every character but white space. Other languages: the words between spaces. English: as nltk's
    word_tokenize in nearly all cases, with sentences cut after [.!?] and a space, where nltk uses its Punkt model;
    corpus BLEU on RoleBench differs by less than 0.01."""
    if language == "zh":
        return [character for character in text if not character.isspace()]
    if language == "other":
        return text.split()

    found = []
    for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
        # only the last period of a sentence is a word of its own
        sentence = re.sub(r"(?<!\.)\.([\])}>\"'”’]*)$", r" . \1", sentence)
        # punctuation, but neither 3.5 nor 3,500
        sentence = re.sub(r"([;@#$%&?!*\[\](){}<>\"“”‘’«»`]|--+|\.{2,}|[,:](?!\d)|[‒-―])", r" \1 ", sentence)
        # contractions: do n't, it 's
        sentence = re.sub(r"(?i)(?<=\w)(n't|'(?:s|m|d|ll|re|ve))(?!\w)", r" \1", sentence)
        found += sentence.split()
    return found


def ngrams(words, n):
    """Counter of the n-grams of a list of words."""
    return Counter(zip(*(words[i:] for i in range(n))))


# ---------------------------------------------------------------------------------------------------------------- BLEU
def bleu4(answer, references):
    """Sentence BLEU-4 of word lists against all references at once, in [0, 1].

    Smoothing method 3: the k-th order without any match counts as 1 / (2^k * its n-grams). No common word at all is 0.
    """
    log_precision = 0.0
    orders_without_match = 0
    for n in range(1, 5):
        have = ngrams(answer, n)
        allowed = Counter()
        for reference in references:
            allowed |= ngrams(reference, n)                              # the largest count in any reference

        matches = (have & allowed).total()
        total = max(1, have.total())
        if matches == 0:
            if n == 1:
                return 0.0
            orders_without_match += 1
            matches = 2.0 ** -orders_without_match
        log_precision += math.log(matches / total) / 4

    # brevity penalty, against the reference nearest in length
    closest = min((abs(len(reference) - len(answer)), len(reference)) for reference in references)[1]
    return math.exp(log_precision + min(0.0, 1 - closest / len(answer)))


# --------------------------------------------------------------------------------------------------------------- ROUGE
def lcs_words(x, y):
    """The distinct words of a longest common subsequence of two word lists, ties as the `rouge` package takes them.

    Bit-parallel: after i words of x, V's zero bits mark where a common subsequence grows, so LCS(x[:i], y[:j]) is the
    number of zeros among V's first j bits.
    """
    where = defaultdict(int)
    for j, word in enumerate(y):
        where[word] |= 1 << j
    full = (1 << len(y)) - 1
    rows = [full]
    for word in x:
        V = rows[-1]
        u = V & where.get(word, 0)
        rows.append(((V + u) | (V - u)) & full)

    def length(i, j):
        first_j_bits = rows[i] & ((1 << j) - 1)
        return j - first_j_bits.bit_count()

    # walk back from the end
    found = set()
    i, j = len(x), len(y)
    while i and j:
        if x[i - 1] == y[j - 1]:
            i -= 1
            j -= 1
            found.add(x[i])
        elif length(i - 1, j) > length(i, j - 1):
            i -= 1
        else:
            j -= 1
    return found


def rouge(answer, reference):
    """{"rouge1", "rouge2", "rougeL"}, F in [0, 1], of two texts of blank-separated words, as the `rouge` package
    counts: n-grams as sets, sentences cut at ".", ROUGE-L over the union of all sentence pairs. Only periods: 0."""
    answer_sentences = [sentence.split() or [""] for sentence in answer.split(".") if sentence]
    reference_sentences = [sentence.split() or [""] for sentence in reference.split(".") if sentence]
    answer_words = sum(answer_sentences, [])
    reference_words = sum(reference_sentences, [])

    # common n-grams
    scores = {}
    for n in (1, 2):
        have = set(ngrams(answer_words, n))
        wanted = set(ngrams(reference_words, n))
        scores[f"rouge{n}"] = f_score(len(have & wanted), len(have), len(wanted))

    # the words of the longest common subsequences of all pairs of sentences
    union = set()
    for r in reference_sentences:
        for a in answer_sentences:
            union |= lcs_words(r, a)
    scores["rougeL"] = f_score(len(union), len(set(answer_words)), len(set(reference_words)))
    return scores


def f_score(common, have, wanted):
    """F of precision common / have and recall common / wanted."""
    precision = common / max(1, have)
    recall = common / max(1, wanted)
    return 2 * precision * recall / (precision + recall + 1e-8)


# ------------------------------------------------------------------------------------------------------ answers, means
def contains_fact(answer, facts, language):
    """Whether an answer contains the words of one of the facts in sequence, ignoring case and punctuation."""
    pattern = r"\w" if language == "zh" else r"\w+"

    def words(text):
        return f" {' '.join(re.findall(pattern, text.lower()))} "
    return any(words(fact) in words(answer) for fact in facts)


def score_answer(answer, references, language, facts=()):
    """{"bleu4", "rouge1", "rouge2", "rougeL"} of an answer in percent; of several references the best, per metric.
    With facts also "fact", 100 or 0.

    English ROUGE takes the words between spaces, English BLEU those of `tokenize_words`, as in the authors' code.
    """
    def spaced(text):
        return " ".join(tokenize_words(text, "zh")) if language == "zh" else text

    each = [rouge(spaced(answer), spaced(reference)) for reference in references]
    scores = {name: max(r[name] for r in each) for name in ("rouge1", "rouge2", "rougeL")}
    reference_words = [tokenize_words(reference, language) for reference in references]
    scores["bleu4"] = bleu4(tokenize_words(answer, language), reference_words)
    scores = {name: 100 * scores[name] for name in METRICS}
    if facts:
        scores["fact"] = 100.0 if contains_fact(answer, facts, language) else 0.0
    return scores


def distinct_n(answers, n):
    """Distinct n-grams over all n-grams of the answers (lists of words); a low value means repetition."""
    counts = Counter()
    for words in answers:
        counts.update(ngrams(words, n))
    return len(counts) / max(1, counts.total())


def repeats_itself(answer, language):
    """Whether two to eight words (Chinese: characters) occur three times in a row: greedy decoding ran in a circle."""
    text = "".join(f"{word} " for word in tokenize_words(answer, language))
    return re.search(r"(?<!\S)((?:\S+ ){2,8}?)\1\1", text) is not None


def bootstrap(values, resamples=1000, seed=0):
    """95 % interval of the mean over test items, by drawing the items anew: (low, high) of values (n,) or (n, m).

    On paired differences it shows whether a difference could be due to these items; it does not cover other seeds.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    drawn = np.random.default_rng(seed).multinomial(n, [1 / n] * n, resamples)             # (resamples, n) counts
    return np.percentile(drawn @ values / n, (2.5, 97.5), axis=0).tolist()


def bootstrap_difference(a, b, resamples=1000, seed=0, same_seeds=False, groups=None):
    """95 % interval of mean(a) - mean(b) by drawing test items and training seeds anew, together: (low, high).

    a (S_a, n), b (S_b, n): runs by items, which are paired. same_seeds: so are the runs, and a seed is drawn for both
    sides. A side of one run stays that run. With few runs it is somewhat too narrow: with S, their part of the variance
    is (S - 1) / S of what it should be. groups: a name or number of each item, such as its question where several roles
    are asked the same: items of one group are drawn as one. Default: each item is a group.
    """
    rng = np.random.default_rng(seed)
    n = np.shape(a)[1]
    names, group = np.unique(np.arange(n) if groups is None else groups, return_inverse=True)
    drawn = rng.multinomial(len(names), [1 / len(names)] * len(names), resamples)[:, group]
    items = drawn / drawn.sum(1, keepdims=True)                                            # (resamples, n) weights
    if same_seeds:                                                                         # one side: the differences
        a, b = np.subtract(a, b), np.zeros((1, n))

    sides = []
    for values in (np.asarray(a, dtype=float), np.asarray(b, dtype=float)):
        runs = rng.multinomial(len(values), [1 / len(values)] * len(values), resamples) / len(values)
        sides.append((items @ values.T * runs).sum(1))
    return np.percentile(sides[0] - sides[1], (2.5, 97.5)).tolist()


def mean_scores(predictions):
    """The scores of prediction lines: means, n, 95 % intervals, mean length in words, distinct-1 and -2, the percentage
    that repeat themselves; "fact" and n_facts over the lines that have facts, if any has."""
    values = [[prediction[metric] for metric in METRICS] for prediction in predictions]
    answers = [tokenize_words(p["answer"], p.get("language", "en")) for p in predictions]
    low, high = bootstrap(values)

    scores = dict(zip(METRICS, np.mean(values, 0).tolist()))
    scores["n"] = len(predictions)
    scores["interval"] = {metric: [low[i], high[i]] for i, metric in enumerate(METRICS)}
    scores["length"] = sum(map(len, answers)) / len(answers)
    scores["distinct1"] = distinct_n(answers, 1)
    scores["distinct2"] = distinct_n(answers, 2)
    looping = [p for p in predictions if repeats_itself(p["answer"], p.get("language", "en"))]
    scores["loops"] = 100 * len(looping) / len(predictions)

    facts = [prediction["fact"] for prediction in predictions if "fact" in prediction]
    if facts:
        scores["fact"] = sum(facts) / len(facts)
        scores["n_facts"] = len(facts)
        scores["interval"]["fact"] = bootstrap(facts)
    return scores


def aggregate(predictions):
    """{split: {"overall": scores, "roles": {name: scores}}} of prediction lines that carry their metrics; with "kinds",
    {kind: scores}, where lines name the kind of knowledge that they ask for."""
    def scores_by(key, lines):
        """{value: scores} of the lines that have this value under `key`, in order of first appearance."""
        groups = {}
        for line in lines:
            if line.get(key):
                groups.setdefault(line[key], []).append(line)
        return {value: mean_scores(group) for value, group in groups.items()}

    splits = {}
    for split in sorted({line["split"] for line in predictions}):
        lines = [line for line in predictions if line["split"] == split]
        splits[split] = {"overall": mean_scores(lines), "roles": scores_by("role", lines)}

        kinds = scores_by("kind", lines)
        if kinds:
            splits[split]["kinds"] = kinds
    return splits
