#!/usr/bin/env python3
"""How soon a push is decided about after its webhook, and how soon an upstream table's publication starts its reader.

    scripts/bench/react.py --binary PATH [--rounds 20]

A round is a pushed commit and its signed webhook, told to a controller that polls once an hour, so whatever it sees it sees for the
webhook. All rounds run twice: with all roles in one process, and with `work` in one of its own.
The commits change the query of one of two tables in turns, so that it and its reader are computed anew.

Nothing is waited for to be timed. Times are those that were written down when things happened, all by the clock of this machine:
  * sent: this script's, before it connects;
  * seen and decided: of the facts in the ledger, milliseconds, taken when control began to look at what decides; the write follows;
  * handed out and begun: of the lines `started` and `reads` in the run's log, milliseconds. Control says the first once the facts
    before it are on disk, whoever performs the step says the second;
  * published: when the file that makes the table's version visible had got its name and lost its temporary one (ctime).
A round ends when nothing has run for a second; the next begins up to a fifth of a second later, by a fixed seed, because hints are looked
for five times a second.
"""

import argparse
import hashlib
import hmac
import http.client
import json
import random
import re
import sqlite3
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from common import CACHE, clean_env, fail, git, load, median, row, say
from live import Controller

SECRET = b"shared-with-the-forge"
PUSH = b'{"ref": "refs/heads/main"}'
# Longer than the figure takes.
POLL_S = 3600
PLACES = {"one process": (), "work apart": ("control,stream,serve", "work")}
QUIET_S = 1
HINT_S = 0.2
# More runs than one push makes of a product.
NEWEST = 40
# A step that takes longer is broken, not slow.
GIVE_UP_S = 60


@dataclass(frozen=True)
class Pair:
    """A table, what is changed of its query, and the product that reads the column."""

    upstream: str
    port: str
    reader: str
    line: str
    change: str


PAIRS = (
    # The articles end with another word: their vectors are made anew.
    Pair("support/articles", "articles", "support/article-search", "body", "body || ' {}' AS body"),
    # No country is missing, so rows stay the same; their meaning does not, and all 90 days of the reader are due.
    Pair("customer/customers", "customers", "customer/customer-360", "country", "COALESCE(country, 'change {}') AS country"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    for name, roles in PLACES.items():
        folder = CACHE / "react"
        controller = Controller(args.binary, folder, POLL_S, ["--webhook-secret-file", folder / "secret"], roles)
        (folder / "secret").write_bytes(SECRET)
        with controller:
            say(f"react: {name}: the example mesh came to rest after {controller.settle():.0f} s; {load()}")
            found = measure(controller, args.rounds)
        tell(name, found)


def measure(controller, rounds):
    """Pushes and tells of it, and returns the times of each round, milliseconds from when the webhook was sent or the table published."""
    jitter, found = random.Random(7), []
    for number in range(1, rounds + 1):
        time.sleep(jitter.uniform(0, HINT_S))
        pair = PAIRS[number % len(PAIRS)]
        message = f"Change {pair.upstream}, {number}"
        push(controller, pair, message, number)
        sent_ms = webhook(controller)
        rest(controller, message)
        found.append(times(controller, pair, message, sent_ms))
    return found


def push(controller, pair, message, number):
    domain, product = pair.upstream.split("/")
    file = controller.mesh / "domains" / domain / product / f"{product}.sql"
    changed = re.sub(rf"(?m)^  .*\b{pair.line},$", f"  {pair.change.format(number)},", file.read_text())
    file.write_text(changed)
    git("commit", "--quiet", "--all", "--message", message, cwd=controller.mesh)
    git("push", "--quiet", str(controller.repository), "HEAD:main", cwd=controller.mesh)


def webhook(controller):
    """Posts a webhook as GitHub does, and returns when."""
    signature = hmac.new(SECRET, PUSH, hashlib.sha256).hexdigest()
    headers = {"content-type": "application/json", "X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signature}"}
    at_ms = time.time_ns() / 1e6
    connection = http.client.HTTPConnection("127.0.0.1", controller.port, timeout=10)
    connection.request("POST", "/webhooks/github", PUSH, headers)
    answer = connection.getresponse()
    status, text = answer.status, answer.read().decode()
    connection.close()
    if status != 202 or not json.loads(text)["accepted"]:
        fail(f"a webhook was answered with {status}: {text}")
    return at_ms


def ledger(controller, *kinds):
    """Returns facts of some kinds, each with its place and its time."""
    # As `hydromesh status` reads it beside a controller. Its answer has whole seconds.
    with closing(sqlite3.connect(f"file:{controller.state / 'ledger.db'}?mode=ro", uri=True, timeout=10)) as reading:
        marks = ", ".join("?" for _ in kinds)
        found = reading.execute(f"SELECT seq, at_ms, body FROM ledger WHERE kind IN ({marks}) ORDER BY seq", kinds).fetchall()
    return [{**json.loads(body), "seq": seq, "at_ms": at_ms} for seq, at_ms, body in found]


def rest(controller, message):
    """Waits until a commit is decided about and nothing has run for a while, streams aside."""
    deadline = time.monotonic() + GIVE_UP_S
    before, since = None, time.monotonic()
    while time.monotonic() < deadline:
        facts = ledger(controller, "commit_seen", "commit_outcome", "run_started", "run_finished")
        running, newest, decided = set(), None, False
        for fact in facts:
            if fact["fact"] == "commit_seen":
                newest, decided = fact["message"], False
            elif fact["fact"] == "commit_outcome":
                decided = decided or fact["product"] is None
            elif fact["fact"] == "run_finished":
                running.discard(fact["run"])
            elif not fact["step"].endswith("@follow"):
                running.add(fact["run"])
        if newest != message or not decided or running or facts[-1]["seq"] != before:
            before, since = facts[-1]["seq"], time.monotonic()
        elif time.monotonic() - since >= QUIET_S:
            return
        time.sleep(0.25)
    fail(f"{message!r} did not come to rest within {GIVE_UP_S} s; see {controller.folder / 'up.log'}")


def lines(controller, product):
    """Returns when a product's newest runs first said what they say, by run and event."""
    done = subprocess.run(
        [controller.binary, "logs", product, "--state", str(controller.state), "--runs", str(NEWEST), "--format", "json"],
        env=clean_env(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )
    if done.returncode != 0:
        fail(f"hydromesh logs: {done.stderr}")
    found = {}
    for text in done.stdout.splitlines():
        line = json.loads(text)
        at_ms = datetime.fromisoformat(line["at"].replace("Z", "+00:00")).timestamp() * 1000
        found.setdefault((line["run"], line.get("event")), at_ms)
    return found


def times(controller, pair, message, sent_ms):
    """Returns what one push took that has come to rest."""
    table = f"{pair.upstream}.{pair.port}"
    facts = ledger(controller, "commit_seen", "commit_outcome", "published", "run_started")
    seen = next(it for it in facts if it["fact"] == "commit_seen" and it["message"] == message)
    after = [it for it in facts if it["seq"] > seen["seq"]]
    decided = next(it for it in after if it["fact"] == "commit_outcome" and it["product"] is None)
    published = next(it for it in after if it["fact"] == "published" and it["port"] == table)
    begun = next(it for it in after if it["fact"] == "run_started" and it["step"].startswith(f"{pair.reader}:"))
    if (decided["commit"], decided["outcome"]) != (seen["commit"], "applied") or begun["seq"] < published["seq"]:
        fail(f"{message!r} went another way than this figure measures: {decided}, {published}, {begun}")
    visible = controller.state / "lake" / table / "_delta_log" / f"{published['version']:020}.json"
    published_ms = visible.stat().st_ctime_ns / 1e6
    upstream, reader = lines(controller, pair.upstream), lines(controller, pair.reader)
    return {
        "seen": seen["at_ms"] - sent_ms,
        "decided": decided["at_ms"] - sent_ms,
        "first step": upstream[published["run"], "started"] - sent_ms,
        "handed out": reader[begun["run"], "started"] - published_ms,
        "begun": reader[begun["run"], "reads"] - published_ms,
    }


def tell(name, found):
    parts = {part: [it[part] for it in found] for part in found[0]}
    middle = {part: f"{median(values):.0f} ms (at most {max(values):.0f})" for part, values in parts.items()}
    say(
        f"react: {name}: webhook to seen {middle['seen']}, to decided {middle['decided']}, to the first step handed out {middle['first step']}; "
        f"published to its reader handed out {middle['handed out']}, to its reader begun {middle['begun']}; {load()}"
    )
    decided, begun, slowest = parts["decided"], parts["begun"], f"react: the same, the slowest of {len(found)}"
    row(f"react: webhook of a push to its decision, {name}", decided, "ms", promised="< 1 s", limit=1000)
    row(slowest, [max(decided)], "ms", promised="< 1 s", limit=1000)
    row("react: the same push, to its first step handed out", parts["first step"], "ms")
    row(f"react: publication to the start of its reader, {name}", begun, "ms", promised="< 200 ms", limit=200)
    row(slowest, [max(begun)], "ms", promised="< 200 ms", limit=200)


if __name__ == "__main__":
    main()
