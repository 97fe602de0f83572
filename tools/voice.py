"""Do the answers sound like their role? A classifier of roles by character n-grams decides.

    python -m tools.voice --runs runs/demo runs/lora [--format markdown|json]

For each split and language of the first run's data, a classifier learns roles from the training answers. Then it names
the role of each test line, from the answers of each run and from texts that put its accuracy into perspective:

    ceiling         the references: how well voices can be told apart at all
    question        the question alone: what an answer gives away by repeating the question
    question, known the same with a classifier trained on training questions: all that the question gives away
    chance          always the role with most test lines

`general` comes first, since several roles are asked the same there; a role-specific question often names its role.
Wants scikit-learn.
"""
from console import Parser, counted, one_line_errors, render_table

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from checkpoint import read_run
from eval import read_predictions, training_samples
from metrics import bootstrap
from selection import spread

MOST_ANSWERS = 20_000                   # that a classifier learns from, evenly spread


def classifier(texts, roles):
    """A classifier of texts by role: complement naive Bayes on tf-idf of character n-grams.

    On RoleBench's references it is 1 to 4 points below a linear SVM, and learns 95 roles in seconds.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.naive_bayes import ComplementNB
    from sklearn.pipeline import make_pipeline
    ngrams = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), min_df=2, max_features=200_000, sublinear_tf=True)
    try:
        return make_pipeline(ngrams, ComplementNB(alpha=0.1)).fit(texts, roles)
    except ValueError as error:                                          # no n-gram is in two of the texts
        raise ValueError(f"{counted(len(texts), 'text')} of training are too few for a classifier ({error})") from None


def accuracy(model, texts, roles):
    """{"accuracy", "interval", "right"}: the percentage of texts whose role a classifier names, its 95 % interval over
    the texts, and 100 or 0 for each text."""
    right = [100.0 * (found == role) for found, role in zip(model.predict(texts), roles)]
    return {"accuracy": sum(right) / len(right), "interval": bootstrap(right), "right": right}


def voices(train, predictions):
    """Rows of training samples and {run: predictions} that answer the same lines.

    A row is {"split", "language", "text", "n", "roles", "accuracy", "interval", "right"}; "text" is a run or one of the
    others of the module's docstring, and "right" is in the order of (role, question). A split in which fewer than two
    roles have training and test lines is left out. Whether the runs answer the same lines is not checked here.
    """
    rows = []
    first = next(iter(predictions.values()))
    for split, language in dict.fromkeys((p["split"], p["language"]) for p in first):
        samples = [s for s in train if (s.split, s.language) == (split, language)]
        known = {s.role for s in samples}
        lines = {}
        for run, of_run in predictions.items():
            of_part = [p for p in of_run if (p["split"], p["language"]) == (split, language) and p["role"] in known]
            lines[run] = sorted(of_part, key=lambda p: (p["role"], p["question"]))
        tests = next(iter(lines.values()))
        roles = [p["role"] for p in tests]
        if len(set(roles)) < 2:
            continue
        here = {"split": split, "language": language, "n": len(tests), "roles": len(known)}

        # the answers of each run, and the references
        pairs = spread([(answer, s.role) for s in samples for answer in s.answers], MOST_ANSWERS)
        of_answers = classifier(*zip(*pairs))
        for run, of_run in lines.items():
            rows.append(here | {"text": run, **accuracy(of_answers, [p["answer"] for p in of_run],
                                                        [p["role"] for p in of_run])})
        rows.append(here | {"text": "ceiling", **accuracy(of_answers, [p["references"][0] for p in tests], roles)})

        # what the question gives away, and what no text at all does
        questions = [p["question"] for p in tests]
        rows.append(here | {"text": "question", **accuracy(of_answers, questions, roles)})
        pairs = spread([(s.question, s.role) for s in samples], MOST_ANSWERS)
        of_questions = classifier(*zip(*pairs))
        rows.append(here | {"text": "question, known", **accuracy(of_questions, questions, roles)})
        chance = 100 * max(Counter(roles).values()) / len(roles)
        rows.append(here | {"text": "chance", "accuracy": chance, "interval": None, "right": None})
    return rows


def every_training_line(run):
    """The training samples of a run's roles, for a sharp ear: all of them, even if the run had fewer per role."""
    return training_samples(read_run(run) | {"samples_per_role": 0})


def measure(runs):
    """`voices` of run folders, on the data of the first. ValueError unless they answered the same lines."""
    predictions = {}
    for run in runs:
        read_run(run)                                                    # says so if it is none
        path = Path(run) / "predictions.jsonl"
        if not path.is_file():
            raise ValueError(f"{run} has no predictions.jsonl: python eval.py --run {run}")
        predictions[str(run)] = read_predictions(path, trust=True)
        asked = [sorted((p["split"], p["role"], p["question"]) for p in predictions[str(other)])
                 for other in (runs[0], run)]
        if asked[0] != asked[1]:
            raise ValueError(f"{run} answers other test lines than {runs[0]}: score both on the same lines")
    return voices(every_training_line(runs[0]), predictions)


def voice_table(rows):
    """Rows of `voices` as rows of text, headings first."""
    table = [["role named from", "split", "language", "lines", "roles", "accuracy, 95 %"]]
    for row in rows:
        cell = f"{row['accuracy']:.1f}"
        if row["interval"]:
            cell += " [{:.1f}, {:.1f}]".format(*row["interval"])
        table.append([row["text"], row["split"], row["language"], str(row["n"]), str(row["roles"]), cell])
    return table


@one_line_errors("tools.voice")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", nargs="+", required=True, metavar="RUN", help="scored run folders")
    parser.add_argument("--format", choices=("text", "markdown", "json"), default="text")
    args = parser.parse_args()
    if not find_spec("sklearn"):
        raise ValueError("this needs one more package: pip install scikit-learn")
    rows = measure(args.runs)
    if not rows:
        raise ValueError(f"{args.runs[0]}: no split has training and test lines of two roles")
    if args.format == "json":
        shown = [{key: value for key, value in row.items() if key != "right"} for row in rows]
        print(json.dumps(shown, ensure_ascii=False, indent=1))
    else:
        print(render_table(voice_table(rows), args.format == "markdown"))


if __name__ == "__main__":
    main()
