"""The files that serving a role needs beside its weights; tools.export writes them into every folder.

    chat_template.jinja       the prompt of training, for conversations as (role, content) messages
    generation_config.json    the tokens that end an answer
    README.md                 the commands for vLLM and llama.cpp, and one rendered prompt
"""
import json
import re
from pathlib import Path

from jinja2 import TemplateError

from data import run_persona
from files import read_json, write_json, write_text
from tokenizer import template_with_default

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)         # what --max-lora-rank takes
# the name of a precision: of --dtype for vLLM, of --outtype for llama.cpp
PRECISIONS = {"fp32": ("float32", "f32"), "bf16": ("bfloat16", "bf16"), "fp16": ("float16", "f16")}


def folder_names(roles):
    """{role: a folder name of its own}: letters, digits, spaces, "-", "_" and "."; an id where that is not unique."""
    names = {}
    for role, number in roles.items():
        name = re.sub(r"[^\w .\-]", "_", role).strip(" .")
        taken = {other.casefold() for other in names.values()}
        while not name or name.casefold() in taken:
            name = f"{name}-{number}".strip("-")
        names[role] = name
    return names


def vllm_rank(rank):
    """What --max-lora-rank has to be for adapters of a rank."""
    return next((allowed for allowed in VLLM_RANKS if rank <= allowed), rank)            # beyond them vLLM refuses


def make_readme(role, config, prompt, rank):
    """The text of an export's README.md. prompt: a rendered one; rank: that of the adapter, None for a merged model."""
    made_of = "the role's A and the shared B of every linear, as a peft LoRA adapter" if rank else "a merged model"
    text = run_persona(role, config)
    who = "The weights alone make the role; no system turn is needed."
    if text:
        who = f"The prompt makes the role: without a system turn, chat_template.jinja opens with the role's: {text!r}."
    if text and config["method"] == "lora":
        who += " The weights are the same for every role of this run."

    base = config["model"]
    dtype, gguf = PRECISIONS[config["precision"]]
    if rank:
        vllm = (f"vllm serve {base} --enable-lora --max-lora-rank {vllm_rank(rank)} --lora-modules role=. "
                "--generation-config .")
        folder = base if Path(base).is_dir() else f"$(hf download {base})"
        llama = (f"python convert_hf_to_gguf.py {folder} --outtype {gguf} --outfile base.gguf && python "
                 f"convert_lora_to_gguf.py . --base {folder} --outfile role.gguf\n"
                 "llama-server -m base.gguf --lora role.gguf")
    else:
        vllm = "vllm serve . --served-model-name role"
        llama = f"python convert_hf_to_gguf.py . --outtype {gguf} --outfile role.gguf\nllama-server -m role.gguf"
    request = {"model": "role", "temperature": 0, "messages": [{"role": "user", "content": "Who are you?"}]}
    return f"""# {role}

{config["method"]} on {base}: {made_of}. {who}

    {vllm} --chat-template chat_template.jinja --dtype {dtype}
    curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{json.dumps(request)}'
    {llama.replace(chr(10), chr(10) + "    ")} --jinja --chat-template-file chat_template.jinja

One prompt, as training saw it: {prompt!r}
"""


def write_serving_files(folder, role, tokenizer, config, rank):
    """Writes the three files into an export's folder. rank: that of the adapter, None for a merged model."""
    text = run_persona(role, config)
    template = template_with_default(tokenizer.template_text, text)
    write_text(folder / "chat_template.jinja", template)

    # a merged model's folder has the backbone's own files, which must not contradict these
    path = folder / "tokenizer_config.json"
    if path.is_file():
        write_json(path, read_json(path) | {"chat_template": template})
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    write_json(path, generation | {"eos_token_id": sorted(tokenizer.stop_ids)})

    turns = [("system", text)] if text else []
    try:
        prompt = tokenizer.render([*turns, ("user", "Who are you?")], add_generation_prompt=True)
    except TemplateError as error:
        raise ValueError(f"the chat template of {config['model']} refuses a system turn, in which other engines would "
                         f"read who is playing: {error}") from None
    write_text(folder / "README.md", make_readme(role, config, prompt, rank))
