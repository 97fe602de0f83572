"""Work on many items in threads, each result written to a JSONL as it comes: an interrupted job continues there."""
import json
import os
import queue
import threading
from pathlib import Path

from tqdm import tqdm

from files import FileError, locked, parse_json, to_json, writing

GRACE = 60                              # seconds for the pending results when one has failed for good


def read_finished(path, keys):
    """The records of an interrupted collection; a line cut off in mid-write is removed from the file.

    FileError, with nothing touched, if it is a file of something else.
    """
    text, newline, cut_off = path.read_bytes().rpartition(b"\n")
    records = [parse_json(line, f"{path}:{n}") for n, line in enumerate(text.split(b"\n"), 1) if line.strip()]
    foreign = [n for n, record in enumerate(records, 1) if not set(keys) <= record.keys()]
    if cut_off and not cut_off.startswith(b"{"):
        foreign.append(len(records) + 1)
    if foreign:
        raise FileError(f"{path}:{foreign[0]} is no line of this collection: choose another --out")
    if cut_off:
        os.truncate(path, len(text + newline))
    return records


def resumable_map(path, keys, items, work, workers=8):
    """[work(item)] for items, dicts; each result, which has the item's fields `keys`, is appended to a JSONL.

    Items that agree in `keys` with a line of the file are finished already, so an interrupted call can be repeated.
    When one fails for good, no other is begun, and the pending ones are kept. FileError for a file of
    something else, ValueError if another process is writing it.
    """
    def key_of(item):
        return json.dumps([item[key] for key in keys])

    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        open(path, "ab").close()
    with locked(path):
        finished = {key_of(record): record for record in read_finished(path, keys)}
        wanted = {key_of(item): item for item in items}
        missing = [item for key, item in wanted.items() if key not in finished]
        for record in map_in_threads(work, missing, workers, path.name):
            finished[key_of(record)] = record
            with writing(path), open(path, "a", encoding="utf8") as file:
                file.write(to_json(record) + "\n")
    return [finished[key] for key in wanted]


def map_in_threads(work, items, workers, title):
    """Yields work(item) of items as they are done. An error is raised after the pending results have been yielded.

    The threads are daemons, so the program does not wait for them at its end: they may be waiting for a network. But it
    aborts if one of them is inside torch then. A single worker runs without a thread.
    """
    if workers == 1:
        yield from map(work, tqdm(items, title))
        return

    waiting = queue.SimpleQueue()
    results = queue.SimpleQueue()
    failed = threading.Event()
    for item in items:
        waiting.put(item)

    def run():
        while not failed.is_set():
            try:
                results.put(work(waiting.get_nowait()))
            except queue.Empty:
                break
            except Exception as error:                   # handed on to the thread that waits
                failed.set()
                results.put(error)
        results.put(None)                                # this thread has ended

    running = min(workers, len(items))
    for _ in range(running):
        threading.Thread(target=run, daemon=True).start()
    error = None
    with tqdm(total=len(items), desc=title) as bar:
        while running:
            try:
                result = results.get(timeout=GRACE if error else None)
            except queue.Empty:
                break
            if result is None:
                running -= 1
            elif isinstance(result, Exception):
                error = error or result
            else:
                bar.update()
                yield result
    if error:
        raise error
