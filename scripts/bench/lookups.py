#!/usr/bin/env python3
"""Look-ups of features over HTTP: p50 and p99 idle, and while the controller computes a backfill.

    scripts/bench/lookups.py --binary PATH [--rounds 3] [--seconds 15] [--rate 250]

One process asks at a fixed rate over four kept connections on loopback, whatever the answers do: of five requests two are for the streaming features
of a customer, two join the batch row of the same customer, one is `/healthz`, which shows what HTTP and a busy machine cost
without any look-up. A request's time counts from when it should have been sent, so a stalled server cannot hide the requests
that queue behind it (coordinated omission). How late the client itself was is printed beside it: on two cores it competes with the backfill.

Windows are taken in turns: idle, then three backfills of 90 days each, and again. A new one is asked for whenever the last is over, until
the window ends:
  * by command, of commerce/daily-revenue (Iceberg) and of commerce/orders (Delta): rows are computed, staged and audited, and
    as nothing has changed the commit is found to be there already;
  * by a pushed commit that changes the query of customer/customer-360, the very table that is joined: all is published anew.
"""

import argparse
import csv
import gc
import json
import selectors
import socket
import subprocess
import sys
import threading
import time

from common import CACHE, clean_env, fail, load, median, quantile, row, say
from live import Controller

CONNECTIONS = 4
KINDS = ["stream", "joined", "stream", "joined", "healthz"]
LOADS = {
    "idle": None,
    "backfill of daily-revenue": lambda controller: by_command(controller, "commerce/daily-revenue"),
    "backfill of orders": lambda controller: by_command(controller, "commerce/orders"),
    "new query of customer-360": lambda controller: controller.change_query(),
}
# How long a backfill that was asked for may take to begin before it is asked for again.
BEGIN_WITHIN_S = 5
# An answer that takes longer ends the run: something is broken, not slow.
GIVE_UP_S = 10


def by_command(controller, product):
    return controller.backfill(product, f"{product}-{time.time_ns()}")


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.slot = None
        self.received = b""
        self.free_since = 0.0

    def send(self, slot, request):
        self.slot, self.received = slot, b""
        # A request is some hundred bytes: it always fits into an empty socket's buffer.
        self.socket.sendall(request)

    def finished(self):
        """Reads what came, and returns whether the answer is whole."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed a kept connection")
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"answered {head.splitlines()[0]!r}: {body[:200]!r}")
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                return len(body) >= int(value)
        raise ConnectionError("an answer without a length")


def client(port, rate, seconds, customers):
    """Asks at a fixed rate and prints, as JSON, microseconds from due to answered and from due to sent, by kind."""
    gc.disable()
    paths = {
        "stream": "/v1/features/customer/activity?customer_id={}",
        "joined": "/v1/features/customer/activity?customer_id={}&join=customer/customer-360",
        "healthz": "/healthz",
    }
    total = int(rate * seconds)
    requests = []
    for index in range(total):
        path = paths[KINDS[index % len(KINDS)]].format(customers[index * 7919 % len(customers)])
        requests.append(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    selector = selectors.DefaultSelector()
    idle = [Connection(port) for _ in range(CONNECTIONS)]
    for connection in idle:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    took, late = [0] * total, [0] * total
    begun, sent, done = time.perf_counter() + 0.1, 0, 0
    step = 1 / rate
    while done < total:
        now = time.perf_counter()
        while sent < total and idle and begun + sent * step <= now:
            connection = idle.pop()
            # Waiting for a connection is the server's doing, the rest is ours.
            late[sent] = now - max(begun + sent * step, connection.free_since)
            connection.send(sent, requests[sent])
            sent += 1
            now = time.perf_counter()
        # With no connection free the next request waits, and its wait counts.
        pause = GIVE_UP_S if sent == total or not idle else max(0.0, begun + sent * step - now)
        events = selector.select(pause)
        if not events and pause == GIVE_UP_S:
            raise TimeoutError("no answer")
        now = time.perf_counter()
        for key, _ in events:
            connection = key.data
            if connection.finished():
                took[connection.slot] = now - begun - connection.slot * step
                connection.slot, connection.free_since = None, now
                done += 1
                idle.append(connection)
    result = {kind: {"took": [], "late": []} for kind in set(KINDS)}
    for index in range(total):
        kind = result[KINDS[index % len(KINDS)]]
        kind["took"].append(round(took[index] * 1e6))
        kind["late"].append(round(late[index] * 1e6))
    print(json.dumps(result))


class Backfills(threading.Thread):
    """Keeps a backfill under way until it is told to stop, and counts."""

    def __init__(self, controller, ask):
        super().__init__(daemon=True)
        self.controller, self.ask = controller, ask
        self.stopped, self.asked, self.looks, self.busy = threading.Event(), 0, 0, 0

    def run(self):
        asked_at = 0.0
        while not self.stopped.is_set():
            computing = self.controller.computing() > 0
            self.looks += 1
            self.busy += computing
            if computing:
                asked_at = 0.0
            elif time.monotonic() - asked_at > BEGIN_WITHIN_S:
                self.asked += self.ask(self.controller)
                asked_at = time.monotonic()
            self.stopped.wait(0.25)


def window(controller, args, ask, customers):
    backfills = Backfills(controller, ask) if ask else None
    if backfills:
        backfills.start()
        deadline = time.monotonic() + 30
        while not backfills.busy and time.monotonic() < deadline:
            time.sleep(0.1)
        backfills.busy = backfills.looks = 0
    done = subprocess.run(
        [sys.executable, __file__, "--client", str(controller.port), "--rate", str(args.rate), "--seconds", str(args.seconds)],
        input=json.dumps(customers), capture_output=True, text=True, env=clean_env(), timeout=args.seconds + 60,
    )
    if done.returncode != 0:
        fail(f"the client of the look-ups failed: {done.stderr}")
    if backfills:
        backfills.stopped.set()
        backfills.join()
        controller.settle()
    return json.loads(done.stdout), backfills


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rate", type=float, default=250)
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        client(args.client, args.rate, args.seconds, json.loads(sys.stdin.read()))
        return
    if not args.binary:
        parser.error("--binary is required")
    figures = {}
    with Controller(args.binary, CACHE / "lookups", poll_s=1) as controller:
        say(f"lookups: the example mesh came to rest after {controller.settle():.0f} s; {load()}")
        with (controller.folder / "mesh/domains/customer/customers/data/customers.csv").open() as lines:
            customers = sorted({it["customer_id"] for it in csv.DictReader(lines)})
        window(controller, argparse.Namespace(rate=args.rate, seconds=3), None, customers)
        for number in range(1, args.rounds + 1):
            for name, ask in LOADS.items():
                result, backfills = window(controller, args, ask, customers)
                words = []
                for kind in ("stream", "joined", "healthz"):
                    took, late = result[kind]["took"], result[kind]["late"]
                    figures.setdefault((kind, name), []).append((quantile(took, 0.5) / 1000, quantile(took, 0.99) / 1000))
                    words.append(f"{kind} p50 {quantile(took, 0.5) / 1000:.2f} p99 {quantile(took, 0.99) / 1000:.2f} max {max(took) / 1000:.1f} ms")
                late = [it for kind in result.values() for it in kind["late"]]
                busy = f"; {backfills.asked} backfills, computing in {backfills.busy} of {backfills.looks} looks" if backfills else ""
                say(f"lookups: round {number}, {name}: {', '.join(words)}; client late p99 {quantile(late, 0.99) / 1000:.2f} ms{busy}; {load()}")
    for kind, label in {"stream": "features", "joined": "features + batch row", "healthz": "/healthz, for comparison"}.items():
        rest = median([p99 for _, p99 in figures[kind, "idle"]])
        promised = kind != "healthz"
        for name in LOADS:
            if name == "idle":
                row(f"{label}: p50, idle", [p50 for p50, _ in figures[kind, name]], "ms")
            ours = [p99 for _, p99 in figures[kind, name]]
            bound = promised and name != "idle"
            row(
                f"{label}: p99, {name}", ours, "ms", promised="at most 2 x idle" if bound else None, limit=2 * rest if bound else None,
                note=f"{median(ours) / rest:.1f} x idle" if name != "idle" else "",
            )


if __name__ == "__main__":
    main()
