"""From a command line to what the loop needs: configuration, data, training examples, the run folder."""
from console import counted

import dataclasses
import os
import re
from collections import Counter
from pathlib import Path

import torch

from arguments import parse_args
from checkpoint import check_same, made_of, new_folder, read_run, versions
from config import KEYS, Config, pick_device, resolve
from data import LINE_KEYS, SPLITS, encode_examples, fetch_data, languages, load_profiles, load_samples, rolebench_files
from files import read_jsonl, write_json
from hycora_layer import METHODS
from model_config import check_ids
from processes import world
from selection import choose_roles, look_alikes, some_of_each


def read_arguments(argv):
    """(Config, run folder to resume or None) of a command line, with every "auto" resolved."""
    values, resume = parse_args(argv)
    if resume:
        if values:
            values = {"max_steps": 0} | values           # --epochs counts, whatever max_steps was
        saved = read_run(resume)
        values = {key: saved[key] for key in KEYS} | values
    cfg = resolve(Config(**values))
    if cfg.device.startswith("cuda") and world()[1] > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        gpus = torch.cuda.device_count()
        if here > gpus:
            raise ValueError(f"torchrun started {here} processes here, for {counted(gpus, 'GPU')}: lower "
                             f"--nproc_per_node")
        cfg = dataclasses.replace(cfg, device=pick_device(f"cuda:{os.environ['LOCAL_RANK']}"))
        torch.cuda.set_device(cfg.device)
    return cfg, resume


def load_data(cfg):
    """(training samples, test samples, {role: id}, {role: description}). ValueError if they do not fit together."""
    folder = fetch_data(cfg.data)

    def load(part):
        return load_samples(folder, cfg.language, part, cfg.splits, cfg.generalization)
    samples = load("train")
    tests = load("test") if cfg.score_limit else []
    for line in describe_data(folder, samples, cfg.language, cfg.splits, cfg.generalization):
        print(line)
    if cfg.answers == "first":
        samples = [dataclasses.replace(s, answers=s.answers[:1]) for s in samples]

    # a shared LoRA plays any role that its prompt names, also roles that only the test has
    only_the_prompt = cfg.role_in_prompt and METHODS[cfg.method] == ("shared", "shared")
    playable = samples + tests if only_the_prompt else samples
    roles = choose_roles(playable, cfg.role_subset)
    unknown = {s.role for s in tests} - {s.role for s in playable}
    if unknown:
        raise ValueError(f"test lines of {folder} are about roles that training does not have: "
                         f"{', '.join(sorted(unknown))}; --score-limit 0 trains without scoring")

    samples = [s for s in samples if s.role in roles]
    tests = [s for s in tests if s.role in roles]
    if cfg.samples_per_role:                               # after the roles, which are the same for every seed
        samples = some_of_each(samples, cfg.samples_per_role, cfg.seed)
    if not cfg.profiles_in_prompt:
        return samples, tests, roles, {}
    profiles = {role: text for role, text in load_profiles(folder, cfg.language).items() if role in roles}
    if profiles:
        use = "in the prompts" if cfg.role_in_prompt else "kept with the run, not in the prompts"
        print(f"profiles of {len(profiles)} of {counted(len(roles), 'role')}: {use}")
    return samples, tests, roles, profiles


def describe_data(root, samples, language="all", splits=SPLITS, generalization="instruction"):
    """What to know before training on `samples` of a data set, as lines of text."""
    counts = Counter(s.role for s in samples)
    pairs = [f"{a} ({counts[a]}) and {b} ({counts[b]})" for a, b in look_alikes(counts)]
    if pairs:
        yield f"{root}: role names that look alike, with their lines; is one misspelt? {'; '.join(pairs)}"

    is_own = Path(root).is_file()
    chinese = [s for s in samples if re.search("[\u4e00-\u9fff]", s.answers[0])]
    if is_own and language != "zh" and len(chinese) > len(samples) / 2:
        yield (f"{root}: {len(chinese)} of {len(samples)} answers have Chinese characters; with --language zh each of "
               f"these is scored as a word")

    if is_own:
        paths = [root]
    else:
        paths = []
        for lang in languages(language):
            paths += rolebench_files(root, lang, "train", splits, generalization).values()
    records = [record for path in paths for _, record in read_jsonl(path)]

    if is_own and not any(record.get("test") for record in records):
        yield (f'{root}: no line has "test": true; {len(records) - len(samples)} of {len(records)} are held out for '
               f'the test, near-identical questions together')
    ignored = Counter(key for record in records for key in record if key not in LINE_KEYS)
    if ignored:
        keys = ", ".join(f"{key!r} ({count})" for key, count in ignored.items())
        yield f"{root}: keys that nothing reads, with their lines: {keys}"


def encode(samples, roles, profiles, tokenizer, cfg, model_config):
    """Training samples as token ids that the model knows; prints what max_length or the model's context cuts off."""
    in_prompt = profiles if cfg.role_in_prompt else None
    limit = min(cfg.max_length, model_config.max_positions)
    examples, truncated, dropped = encode_examples(samples, roles, tokenizer, limit, in_prompt)
    if not examples:
        raise ValueError(f"no training example is left: {counted(len(samples), 'sample')}, max_length {limit}")
    check_ids([example.ids for example in examples], model_config)
    if truncated or dropped:
        what = f"max_length {limit}" if limit == cfg.max_length else f"the model reads {limit} tokens"
        print(f"{what}: {truncated} examples lose the end of their answer, "
              f"{dropped} are left out: their prompt alone is longer")
    return examples


def run_folder(cfg, resume, roles, profiles, examples, prompt):
    """The run folder: a new one with config.json and roles.json, or `resume`, if it has the same.

    prompt: a sample prompt, to detect a later change of the template.
    """
    is_main = world()[0] == 0
    same = made_of(cfg, examples)
    if resume:
        known = read_run(resume)["roles"]
        if roles != known:
            raise ValueError(f"{resume} is about {len(known)} roles and {cfg.data} about {len(roles)} or others")
        check_same(resume, same)
        return resume
    if not is_main:
        return Path(cfg.out)

    run = new_folder(cfg.out)
    keys = {k: v for k, v in vars(cfg).items() if k in KEYS}
    more = {"out": str(run), "made_of": same, "prompt": prompt, "profiles": profiles}
    write_json(run / "roles.json", roles)
    write_json(run / "config.json", keys | versions(cfg.device) | more)
    return run
