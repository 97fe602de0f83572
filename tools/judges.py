"""The judges of tools.judge, each a function from a prompt to (verdict or None, what it replied)."""
import re

import torch

from files import fetch_model
from model import Transformer
from tokenizer import Tokenizer
from tools.service import chat_completion, check_endpoint, read_key


def parse(text):
    """"1", "2" or "tie" from the last line of a judge's answer, and None unless that line is exactly a verdict."""
    last = (text.strip().splitlines() or [""])[-1]
    found = re.fullmatch(r"\W*verdict:?\W*(1|2|tie)\W*", last.lower())
    return found and found[1]


def service(url, name):
    """A judge behind an OpenAI-compatible endpoint: a function from prompt to (verdict or None, its reply)."""
    check_endpoint(url)
    read_key()

    def verdict(prompt):
        for _ in range(3):                               # where no verdict can be read
            reply = chat_completion(url, name, [{"role": "user", "content": prompt}], max_tokens=512, temperature=0)
            if found := parse(reply):
                break
        return found, reply
    return verdict


def local(folder):
    """A backbone as judge: "1" or "2", whichever it finds likelier after the prompt and "Verdict:"."""
    folder = fetch_model(folder)
    tokenizer, backbone = Tokenizer(folder), Transformer.from_pretrained(folder)

    @torch.inference_mode()
    def verdict(prompt):
        start = tokenizer.prompt(prompt) + tokenizer.encode("Verdict:")
        scores = {}
        for option in "12":
            ids = start + tokenizer.encode(f" {option}")
            if len(ids) > backbone.config.max_positions:
                return None, "the prompt is longer than this judge can read"
            log_p = backbone(torch.tensor([ids], device=backbone.device))[0, :-1].float().log_softmax(-1)
            scores[option] = sum(log_p[i - 1, ids[i]].item() for i in range(len(start), len(ids)))
        return max(scores, key=scores.get), f"{scores['1'] - scores['2']:+.4f} nats for 1"
    return verdict
