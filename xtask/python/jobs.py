"""How the oracles take their work and answer: one JSON document in, one out.

A script that calls `answer(function)` reads a list of jobs from the file named as its
first argument, or from standard input; runs the function on each; and prints the list of
results. Whatever a library prints meanwhile goes to standard error.
"""

import json
import os
import sys


def read_jobs():
    if len(sys.argv) > 1:
        with open(sys.argv[1], encoding="utf-8") as file:
            return json.load(file)
    return json.load(sys.stdin)


def answer(function):
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    json.dump([function(job) for job in read_jobs()], out, allow_nan=False)
    out.close()


def error_text(error):
    """The exception in words, never empty: null means that there was none."""
    return str(error) or type(error).__name__
