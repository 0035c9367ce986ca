"""A process that holds the model: it reads small pictures, predicts batches, and writes whole answers.

It speaks with the server over its standard input and output. A request is the pickle of a list of `Asked`; a reply has
a status of HTTP and a JSON object for each of them; either has its length before it. What a hostile picture does to a
decoder stays in this process, and the server unpickles nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from suite.errors import InputError, WorkError, printable
from suite.export.predict import Predictor
from suite.serving.limits import Refused
from suite.serving.pictures import picture_of
from suite.serving.public import seen_png

LENGTH = struct.Struct("!I")  # before each message

ANSWER = struct.Struct("!HI")  # before each answer of a reply: its status, and its length in bytes


class Asked(NamedTuple):
    """One picture to predict."""

    content: bytes | np.ndarray  # a file, or a stored picture (C, stored, stored) uint8
    seen: bool  # whether the answer holds what the model sees, as a PNG


class Answered(NamedTuple):
    """The answer to one picture."""

    status: int  # of HTTP
    body: bytes  # a JSON object


def framed(message: bytes) -> bytes:
    return LENGTH.pack(len(message)) + message


def answers_of(reply: bytes) -> Iterator[Answered]:
    """The answers in a reply."""
    at = 0
    while at < len(reply):
        status, size = ANSWER.unpack_from(reply, at)
        at += ANSWER.size + size
        yield Answered(status, reply[at - size : at])


def predicted(predictor: Predictor, asked: Sequence[Asked], most: int) -> Iterator[Answered]:
    """The answers of the model, `most` the pixels of a picture at most."""
    read: list[np.ndarray | Refused] = []
    for one in asked:
        try:
            given = one.content
            read.append(picture_of(given, predictor.card.preprocess, most) if isinstance(given, bytes) else given)
        except Refused as refused:
            read.append(refused)
    pictures = [picture for picture in read if not isinstance(picture, Refused)]
    found = iter(predictor.answers(np.stack(pictures)) if pictures else [])
    for one, picture in zip(asked, read, strict=True):
        if isinstance(picture, Refused):
            yield Answered(picture.status, json.dumps({"error": picture.reason}).encode())
            continue
        answer = next(found)
        if one.seen:
            answer["seen"] = seen_png(picture)
        yield Answered(500 if "error" in answer else 200, json.dumps(answer).encode())


def main() -> None:
    """Answer requests until standard input ends. The first reply says whether the model could be loaded."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", required=True)
    parser.add_argument("--format")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--pixels", type=int, required=True)
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends this process
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints gets among the replies

    def reply(answers: Sequence[Answered]) -> None:
        replies.write(framed(b"".join(ANSWER.pack(one.status, len(one.body)) + one.body for one in answers)))
        replies.flush()

    try:
        predictor = Predictor(given.model, given.device, given.format, threads=given.threads)
    except (InputError, WorkError) as error:
        reply([Answered(400 if isinstance(error, InputError) else 500, str(error).encode(errors="replace"))])
        return
    reply([Answered(200, predictor.runtime.format.encode())])
    while (message := _message(requests)) is not None:
        asked = pickle.loads(message)
        try:
            reply(list(predicted(predictor, asked, given.pixels)))
        except InputError as error:  # of the model, not of one picture
            sys.stderr.write(f"mnist-suite: {printable(str(error))}\n")
            reply([Answered(500, b'{"error": "The model has failed to answer."}')] * len(asked))


def _message(file: BinaryIO) -> bytes | None:
    """The next message; None where the file ends."""
    length = file.read(LENGTH.size)
    return file.read(LENGTH.unpack(length)[0]) if len(length) == LENGTH.size else None


if __name__ == "__main__":
    main()
