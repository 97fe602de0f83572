"""A judge compares two files of answers: which is more in character, and which shows more knowledge (Table 4).

    python -m tools.judge --a A.jsonl --b B.jsonl --endpoint URL --model NAME [--limit 100] [--dry-run]
    python -m tools.judge --a A.jsonl --b B.jsonl --local FOLDER

The files are predictions.jsonl of two runs. For each question and each of two criteria the judge sees both answers
twice, in either order; an answer wins only if it is preferred both times, all else is a tie. Verdicts are appended to
--out as they arrive and never asked for twice. A service's key comes from OPENAI_API_KEY. A local judge is any
backbone's folder; its verdict is the likelier one.
"""
from console import Parser, one_line_errors

import hashlib
from pathlib import Path

from eval import read_predictions
from metrics import bootstrap
from selection import spread
from tools.judges import local, service
from tools.resumable import resumable_map

CRITERIA = {
    "behaviour": "Which answer sounds more like {role}: tone of voice, temper, habits of speech, attitude to whoever "
                 "asks? Leave aside whether it is correct.",
    "knowledge": "Which answer shows better what {role} knows and has lived through, and agrees better with the known "
                 "good answer? Leave aside how it is worded.",
}
PROMPT = """Two actors answered the same question in the name of {role}.

Question: {question}
Known good answer: {reference}

Answer 1: {first}
Answer 2: {second}

{criterion} Being longer or coming first is no merit. Reply with one line, nothing else:
Verdict: 1
or
Verdict: 2
or
Verdict: tie"""


def prompt_of(item):
    """The judge's prompt for a pair, a criterion and an order."""
    first, second = (item[x] for x in item["order"])
    return PROMPT.format(role=item["role"], question=item["question"], reference=item["reference"], first=first,
                         second=second, criterion=CRITERIA[item["criterion"]].format(role=item["role"]))


def pairs(a, b, limit=0):
    """What both files answered, as a list of dicts; at most `limit`, evenly spread. ValueError if there is nothing."""
    mine, theirs = ({(p["split"], p["role"], p["question"]): p for p in read_predictions(path, trust=True)}
                    for path in (a, b))
    common = [dict(zip(("split", "role", "question"), key)) |
              {"a": p["answer"], "b": theirs[key]["answer"], "reference": p["references"][0]}
              for key, p in mine.items() if key in theirs]
    if not common:
        raise ValueError(f"{a} and {b} have no question in common")
    for pair in common:
        texts = "\0".join((pair["a"], pair["b"], pair["reference"]))
        pair["texts"] = hashlib.sha256(texts.encode()).hexdigest()[:16]    # other answers, other verdict
    return spread(common, limit)


def tally(verdicts):
    """{criterion: {"a", "tie", "b", "n", "unreadable", "agreement", "win_rate_a", "win_rate_b", "interval"}}.

    interval: 95 %, of A's win rate minus B's, by bootstrap over the questions.
    """
    result = {}
    for criterion in CRITERIA:
        seen = {}
        for v in verdicts:
            if v["criterion"] == criterion:
                seen.setdefault((v["split"], v["role"], v["question"]), {})[v["order"]] = v["verdict"]
        both = [s for s in seen.values() if len(s) == 2 and all(s.values())]
        outcome = [s["ab"] if s["ab"] == s["ba"] else "tie" for s in both]
        count = {x: outcome.count(x) for x in ("a", "tie", "b")}
        n = len(both)
        result[criterion] = count | {"n": n, "unreadable": len(seen) - n}
        if n:
            result[criterion] |= {"agreement": sum(s["ab"] == s["ba"] for s in both) / n,
                                  "win_rate_a": count["a"] / n, "win_rate_b": count["b"] / n,
                                  "interval": bootstrap([(o == "a") - (o == "b") for o in outcome])}
    return result


@one_line_errors("tools.judge")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--a", required=True, help="predictions.jsonl of one run")
    parser.add_argument("--b", required=True, help="of the other")
    parser.add_argument("--endpoint", help="URL of an OpenAI-compatible service")
    parser.add_argument("--model", help="the service's name of the model")
    parser.add_argument("--local", metavar="FOLDER", help="a backbone as judge, instead of a service")
    parser.add_argument("--out", help="JSONL of verdicts; default: beside --a")
    parser.add_argument("--limit", type=int, default=0, help="at most so many questions, four calls each; 0: all")
    parser.add_argument("--dry-run", action="store_true", help="print the first prompt and the number of calls")
    args = parser.parse_args()
    if args.limit < 0:
        raise ValueError("--limit has to be 0 or more")
    if args.local and (args.endpoint or args.model):
        raise ValueError("--local names a judge already: leave out --endpoint and --model")
    if not (args.dry_run or args.local or args.endpoint and args.model):
        raise ValueError("name a judge: --endpoint and --model, or --local FOLDER")

    # what to ask: each pair, by each criterion, in either order
    name = args.local or args.model
    about = {"judge": name, "a_file": args.a, "b_file": args.b}
    items = [about | pair | {"criterion": criterion, "order": order}
             for pair in pairs(args.a, args.b, args.limit) for criterion in CRITERIA for order in ("ab", "ba")]
    if args.dry_run:
        return print(f"{prompt_of(items[0])}\n\n({len(items)} such calls)")

    # the verdicts
    verdict = local(args.local) if args.local else service(args.endpoint, args.model)
    names = (*about, "criterion", "order", "split", "role", "question", "texts")

    def work(item):
        found, reply = verdict(prompt_of(item))
        won = {"1": item["order"][0], "2": item["order"][1]}.get(found, found)
        return {n: item[n] for n in names} | {"verdict": won, "reply": reply}

    out = Path(args.out or Path(args.a).with_name("verdicts.jsonl"))
    verdicts = resumable_map(out, names, items, work, 1 if args.local else 8)
    if any(v.get("verdict", "missing") not in ("a", "b", "tie", None) for v in verdicts):
        raise ValueError(f"{out}: a \"verdict\" is none of a, b, tie and null")

    # how often each side won
    print(f"{name} on A = {args.a} and B = {args.b}; verdicts in {out}")
    for criterion, t in tally(verdicts).items():
        if not t["n"]:
            print(f"{criterion}: no readable pair of verdicts ({t['unreadable']} unreadable)")
            continue
        low, high = t["interval"]
        print(f"{criterion}: A wins {t['win_rate_a']:.2f}, ties {t['tie'] / t['n']:.2f}, B wins {t['win_rate_b']:.2f}; "
              f"A - B {t['win_rate_a'] - t['win_rate_b']:+.2f}, 95 % [{low:+.2f}, {high:+.2f}]; n = {t['n']}, "
              f"orders agree in {t['agreement']:.0%}, {t['unreadable']} unreadable")


if __name__ == "__main__":
    main()
