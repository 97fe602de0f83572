"""Answers of an OpenAI-compatible service to the test questions, as a file that `eval.py --predictions` scores.

    python -m tools.collect --endpoint URL --model NAME --data DIR --language zh --out answers.jsonl [--limit N]

Each question is asked with its role's name and description as system prompt. The answers are appended as they arrive;
the same command again asks only for those that are missing. The service's key comes from OPENAI_API_KEY.
"""
from console import Parser, one_line_errors

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from data import SPLITS, Sample, fetch_data, load_profiles, load_test_samples, persona_of
from eval import make_prediction
from files import parse_json, write_text
from generate import add_decoding_arguments, decoding_from_args

HOPELESS = (400, 401, 403, 404, 422)    # HTTP statuses that asking again does not mend


def chat_completion(url, model, messages, pauses=(1, 4, 15, 60), **options):
    """What an OpenAI-compatible service answers to chat messages; asked again after each pause (seconds) while it is
    busy, slow or down. The key comes from OPENAI_API_KEY and is kept nowhere. ValueError when it will not answer."""
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import OfflineModeIsEnabled
    client = InferenceClient(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"), timeout=120)
    for pause in (*pauses, None):
        try:
            choices = client.chat_completion(messages, model=model, **options).choices
            return (choices[0].message.content or "").strip()
        except Exception as error:                                       # whatever may go wrong at the other end
            status = getattr(getattr(error, "response", None), "status_code", None)
            if pause is None or status in HOPELESS or isinstance(error, OfflineModeIsEnabled):
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ValueError(f"{url} does not answer: {reason}") from None
            time.sleep(pause)


def read_finished(path, keys):
    """The records of an interrupted collection; a line cut off in mid-write is removed from the file.

    ValueError, with nothing touched, if it is a file of something else.
    """
    if not path.exists():
        return []
    text, _, cut_off = path.read_text("utf8").rpartition("\n")
    records = [parse_json(line, f"{path}:{n}") for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    foreign = [n for n, record in enumerate(records, 1) if not set(keys) <= record.keys()]
    if cut_off and not cut_off.startswith("{"):
        foreign.append(len(records) + 1)
    if foreign:
        raise ValueError(f"{path}:{foreign[0]} is no line of this collection: choose another --out")
    if cut_off:
        write_text(path, text + "\n")
    return records


def resumable_map(path, keys, items, work, workers=8):
    """[work(item)] for items, dicts; each result, which has the item's fields `keys`, is appended to a JSONL.

    Items that agree in `keys` with a line of the file are finished already, so an interrupted call can be repeated.
    ValueError for a file of something else.
    """
    def key_of(item):
        return json.dumps([item[key] for key in keys])

    path = Path(path)
    finished = {key_of(record): record for record in read_finished(path, keys)}
    wanted = {key_of(item): item for item in items}
    path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool, open(path, "a", encoding="utf8") as file:
        jobs = [pool.submit(work, item) for key, item in wanted.items() if key not in finished]
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), desc=path.name):
                record = job.result()
                finished[key_of(record)] = record
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()
        finally:
            pool.shutdown(cancel_futures=True)
    return [finished[key] for key in wanted]


def collect(args):
    """Asks the service every test question that --out does not answer yet; returns the predictions."""
    profiles = load_profiles(fetch_data(args.data), args.language)
    decoding = decoding_from_args(args, args.language)
    by = f"{args.model} at {args.endpoint}, {args.data} ({args.language}); {decoding}"

    def work(item):
        messages = [{"role": "system", "content": persona_of(item["role"], profiles)},
                    {"role": "user", "content": item["question"]}]
        answer = chat_completion(args.endpoint, args.model, messages, max_tokens=decoding.max_new_tokens,
                                 temperature=decoding.temperature, top_p=decoding.top_p)
        sample = Sample(**{key: value for key, value in item.items() if key != "by"})
        return make_prediction(sample, answer, by)

    samples = load_test_samples(args.data, args.language, args.split, args.limit)
    items = [vars(s) | {"by": by} for s in samples]
    return resumable_map(args.out, ("by", "split", "role", "question"), items, work)


def parse_args(argv):
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--endpoint", required=True, help="URL of the service, such as https://api.openai.com/v1")
    parser.add_argument("--model", required=True, help="the service's name of the model")
    parser.add_argument("--data", required=True, help="a folder in RoleBench's layout, or its hub id")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
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
    print(f"{len(predictions)} answers in {args.out}; score them with: "
          f"python eval.py --predictions {args.out} --language {args.language}")


if __name__ == "__main__":
    main()
