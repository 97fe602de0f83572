"""Whether voice and facts hold up in a conversation: the same test questions as first, second, ... fifth turn.

    python -m tools.turns --run runs/demo [--turns 5] [--questions 10]

Each role is asked some of its test questions in conversations of that many turns, with its own answers as history. A
group of questions is asked in every rotation, so each question occurs once at every turn: the rows differ only in the
turn. Writes turns.json into the run folder.
"""
from console import Parser, one_line_errors, render_table

import random
from pathlib import Path

from chat import prompt_within, room_for_prompt
from checkpoint import load_run
from data import load_test_samples, run_persona
from eval import make_prediction, provenance
from files import write_json
from generate import Decoding, generate_texts
from metrics import mean_scores
from report import interval_cell
from selection import role_id


def conversations_of(samples, turns, questions, seed=0):
    """[[Sample of each turn]]: `questions` test questions of each role, in groups of `turns`, in every rotation."""
    by_role = {}
    for sample in samples:
        by_role.setdefault(sample.role, []).append(sample)

    conversations = []
    for of_role in by_role.values():
        chosen = random.Random(seed).sample(of_role, min(questions, len(of_role)))
        for start in range(0, len(chosen) - turns + 1, turns):
            group = chosen[start:start + turns]
            conversations += [group[i:] + group[:i] for i in range(turns)]
    if not conversations:
        raise ValueError(f"no role has {turns} test questions; choose fewer --turns")
    return conversations


def converse(model, tokenizer, config, conversations, decoding):
    """[predictions of each turn]; every answer has the conversation so far in its prompt, as far as in a chat."""
    by = provenance(config, decoding)
    room = room_for_prompt(model.backbone, config, decoding.max_new_tokens)
    histories = [[] for _ in conversations]
    predictions = []
    for turn in range(len(conversations[0])):
        samples = [conversation[turn] for conversation in conversations]
        prompts = [prompt_within(room, tokenizer, sample.question, run_persona(sample.role, config), history)[0]
                   for sample, history in zip(samples, histories)]
        roles = [role_id(sample.role, config["roles"]) for sample in samples]
        answers = generate_texts(model, tokenizer, prompts, roles, decoding, desc=f"turn {turn + 1}")

        # no answer where the conversation fills the context
        predictions.append([make_prediction(sample, answer or "", by) for sample, answer in zip(samples, answers)])
        for history, sample, answer in zip(histories, samples, answers):
            if answer:
                history.append((sample.question, answer))
    return predictions


def table_of(scores):
    """Turns as rows: ROUGE-L and facts with their intervals, and what changed since the first turn."""
    metrics = [metric for metric in ("rougeL", "fact") if metric in scores[0]]
    rows = [["turn", "n", *(title for metric in metrics for title in (metric, "95 %", "since turn 1"))]]
    for turn, of_turn in enumerate(scores, start=1):
        cells = []
        for metric in metrics:
            change = of_turn[metric] - scores[0][metric]
            cells += [f"{of_turn[metric]:.1f}", interval_cell(of_turn, metric), f"{change:+.1f}"]
        rows.append([str(turn), str(of_turn["n"]), *cells])
    return rows


@one_line_errors("tools.turns")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, help="a run folder of train.py")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--questions", type=int, default=10, help="of each role")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if args.turns < 1 or args.questions < args.turns:
        raise ValueError("--turns has to be positive, and --questions at least as many")

    # the test questions of the run, asked in conversations
    model, tokenizer, config = load_run(args.run, args.device)
    samples = load_test_samples(config["data"], config["language"], config["splits"],
                                generalization=config["generalization"], roles=config["roles"])
    samples = [sample for sample in samples if not sample.history]       # others mean nothing as a first turn
    conversations = conversations_of(samples, args.turns, args.questions)
    decoding = Decoding(config["max_new_tokens"])
    scores = [mean_scores(lines) for lines in converse(model, tokenizer, config, conversations, decoding)]

    write_json(Path(args.run) / "turns.json", {"by": provenance(config, decoding), "turns": scores})
    print(f"{provenance(config, decoding)}\n{render_table(table_of(scores))}")


if __name__ == "__main__":
    main()
