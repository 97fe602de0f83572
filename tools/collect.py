"""Answers of an OpenAI-compatible service to the test questions, as a file that `eval.py --predictions` scores.

    python -m tools.collect --endpoint URL --model NAME --data DIR --language zh --out answers.jsonl [--limit N]

Each question is asked with its role's name and description as system prompt. The answers are appended as they arrive;
the same command again asks only for those that are missing. The service's key comes from OPENAI_API_KEY.
"""
from console import Parser, counted, one_line_errors

import sys
from dataclasses import replace

from data import SPLITS, Sample, fetch_data, load_profiles, load_test_samples, persona_of
from eval import make_prediction
from generate import add_decoding_arguments, decoding_from_args
from tools.resumable import resumable_map
from tools.service import chat_completion, check_endpoint, read_key


def sent(args):
    """The Decoding that a service is asked for: its length, temperature and top_p; ValueError if more is wanted."""
    for name in ("top_k", "repetition_penalty", "seed"):
        if hasattr(args, name):
            raise ValueError(f"--{name.replace('_', '-')} is not part of the services' common interface")
    return replace(decoding_from_args(args, args.language), top_k=0)


def collect(args):
    """Asks the service every test question that --out does not answer yet; returns the predictions."""
    check_endpoint(args.endpoint)
    read_key()
    if args.limit < 0:
        raise ValueError("--limit has to be 0 or more")
    profiles = load_profiles(fetch_data(args.data), args.language)
    decoding = sent(args)
    by = f"{args.model} at {args.endpoint}, {args.data} ({args.language}); {decoding}"

    def work(item):
        messages = [{"role": "system", "content": persona_of(item["role"], profiles)}]
        for question, earlier_answer in item["history"]:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": earlier_answer}]
        messages.append({"role": "user", "content": item["question"]})
        answer = chat_completion(args.endpoint, args.model, messages, max_tokens=decoding.max_new_tokens,
                                 temperature=decoding.temperature, top_p=decoding.top_p)
        sample = Sample(**{key: value for key, value in item.items() if key != "by"})
        return make_prediction(sample, answer, by, history=item["history"])

    samples = load_test_samples(args.data, args.language, [args.split] if args.split else SPLITS, args.limit)
    items = [vars(s) | {"by": by} for s in samples]
    return resumable_map(args.out, ("by", "split", "role", "question", "history"), items, work)


def parse_args(argv):
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--endpoint", required=True, help="URL of the service, such as https://api.openai.com/v1")
    parser.add_argument("--model", required=True, help="the service's name of the model")
    parser.add_argument("--data", required=True, help="a JSONL file, or a folder in RoleBench's layout, or its hub id")
    parser.add_argument("--language", choices=("en", "zh", "other"), default="en")
    parser.add_argument("--split", choices=SPLITS)
    parser.add_argument("--limit", type=int, default=0, help="questions per split; 0: all")
    parser.add_argument("--out", required=True, help="JSONL of answers")
    add_decoding_arguments(parser)
    return parser.parse_args(argv)


@one_line_errors("tools.collect")
def main():
    """The command."""
    args = parse_args(sys.argv[1:])
    predictions = collect(args)
    print(f"{counted(len(predictions), 'answer')} in {args.out}; score them with: "
          f"python eval.py --predictions {args.out} --language {args.language}")


if __name__ == "__main__":
    main()
