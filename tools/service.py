"""A question to an OpenAI-compatible service, within limits of time and size.

The service's key comes from OPENAI_API_KEY. It goes to the host that was named and to no other (a redirect is not
followed), and it is neither printed nor stored.
"""
from console import one_line

import json
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from files import reading

HOPELESS = (300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 422)  # statuses for which a retry is useless
MOST_BYTES = 4 * 2 ** 20                # of an answer


def check_endpoint(url):
    """The URL of a service without a slash at its end; ValueError if it is invalid or contains a secret."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not re.fullmatch("[\x21-\x7e]+", url):
        raise ValueError("an endpoint is a URL such as https://api.openai.com/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError(f"the endpoint at {parts.hostname} has a user, a password or a query in its URL, which would "
                         f"be stored with every answer: leave it out, and put the key in OPENAI_API_KEY")
    return url.rstrip("/")


def read_key():
    """The key in OPENAI_API_KEY, or an empty text; ValueError, which does not show it, for an invalid one."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not re.fullmatch("[\x21-\x7e]*", key):
        raise ValueError("OPENAI_API_KEY holds characters that no key has, such as blanks: set it anew")
    return key


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would carry the key, or the question, to a host that the user did not name."""
    def redirect_request(self, *_):
        """None, which makes the redirect an error."""
        return None


def post(url, body, key, seconds):
    """The JSON object that a service answers to one. OSError or ValueError for anything else."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.build_opener(NoRedirect).open(request, timeout=seconds) as response:
        text = response.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError(f"an answer of more than {MOST_BYTES >> 20} MiB")
    with reading("the answer", "a chat completion"):
        return json.loads(text)


def within(seconds, work):
    """The result of work(); TimeoutError if it takes longer than this in total, whatever a service sends meanwhile."""
    done = queue.SimpleQueue()

    def run():
        try:
            done.put((work(), None))
        except Exception as error:                       # handed on to the thread that waits
            done.put((None, error))
    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no whole answer within {seconds} seconds") from None
    if error is not None:
        raise error
    return result


def chat_completion(url, model, messages, pauses=(1, 4, 15, 60), seconds=120, **options):
    """What an OpenAI-compatible service answers to chat messages; retried after each pause (seconds) while it is
    busy, slow or down. seconds: for one answer in total. ValueError when it will not answer."""
    url = check_endpoint(url)
    key = read_key()
    body = {"model": model, "messages": messages, **options}
    for pause in (*pauses, None):
        try:
            answer = within(seconds, lambda: post(f"{url}/chat/completions", body, key, seconds))
            return text_of(answer)
        except Exception as error:                       # whatever may go wrong at the other end
            if pause is None or getattr(error, "code", None) in HOPELESS:
                reason = one_line(error, 200)
                raise ValueError(f"{url} does not answer: {reason.replace(key, '***') if key else reason}") from None
            time.sleep(pause)


def text_of(answer):
    """The text of a chat completion, without what could not be written to a file."""
    try:
        text = answer["choices"][0]["message"]["content"]
        return (text or "").encode("utf8", "replace").decode().strip()
    except (LookupError, TypeError, AttributeError):
        raise ValueError("an answer that is no chat completion") from None
