"""A controller on the example mesh, for the figures that need one that runs. Standard library only.

It is `hydromesh up` on a bare repository of mesh-repo-example, whose dates are moved so that its 90 days end yesterday, with the
history of its live topic produced by `hydromesh produce` before the start, as the example's README says. Not `hydromesh demo`: its clock runs
60 times too fast and its story changes the mesh, so nothing would ever stand idle.
"""

import http.client
import json
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from datetime import date, datetime, timedelta, timezone

from common import ROOT, bare, clean_env, fail, fresh, git, say

EXAMPLE = ROOT / "mesh-repo-example"
LAST_DAY = date(2026, 8, 3) + timedelta(days=89)
PRODUCTS = 9
# Their runs never end: they follow their topic.
ALWAYS_RUN = {"commerce/clickstream", "customer/activity"}
# Nothing runs and nothing new is written for so long: idle.
QUIET_S = 8
START_WITHIN_S = 300


def shift_dates(folder, days):
    """Moves every date of the data and the start of every pipeline by whole days."""

    def moved(match):
        return (date.fromisoformat(match.group(0)) + timedelta(days=days)).isoformat()

    day = re.compile(r"\b20\d\d-\d\d-\d\d(?=\b|T)")
    for path in folder.rglob("*"):
        if path.suffix in (".csv", ".jsonl"):
            path.write_text(day.sub(moved, path.read_text()))
        elif path.name == "pipeline.yaml":
            path.write_text(re.sub(r"(?<=start: )20\d\d-\d\d-\d\d", moved, path.read_text()))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Controller:
    """Starts on entry, is idle once `settle` returns, and is ended on exit.

    `roles` are those of each process, the one that serves first; without, one process does everything.
    """

    def __init__(self, binary, folder, poll_s=10, options=(), roles=()):
        self.binary, self.folder, self.poll_s = str(binary), fresh(folder), poll_s
        self.options = [*map(str, options)]
        self.roles = [["--role", it] for it in roles] or [[]]
        self.state = self.folder / "state"
        self.port = free_port()
        self.token = secrets.token_hex(16)
        # The first whole day of the data, and the last.
        self.last = datetime.now(timezone.utc).date() - timedelta(days=1)
        self.first = self.last - timedelta(days=89)
        self.process, self.beside, self.changes = None, [], 0

    def __enter__(self):
        self.mesh = mesh = self.folder / "mesh"
        shutil.copytree(EXAMPLE, mesh)
        shift_dates(mesh, (self.last - LAST_DAY).days)
        seed = mesh / "seed" / "raw-clicks.jsonl"
        produced = self.folder / "raw-clicks.jsonl"
        seed.rename(produced)
        self.repository = bare(mesh, self.folder / "mesh.git")
        self.state.mkdir()
        done = subprocess.run(
            [self.binary, "produce", "--topic", "raw-clicks", "--state", str(self.state), str(produced)],
            env=clean_env(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )
        if done.returncode != 0:
            fail(f"hydromesh produce: {done.stderr}")
        token = self.folder / "token"
        token.write_text(self.token)
        self.log = (self.folder / "up.log").open("wb")
        self.begun = time.monotonic()
        up = [
            self.binary, "up", "--repo", str(self.repository), "--env", "dev", "--state", str(self.state), "--poll", str(self.poll_s),
            "--listen", f"127.0.0.1:{self.port}", "--token-file", str(token), *self.options,
        ]
        self.process, *self.beside = [
            subprocess.Popen([*up, *role], env=clean_env(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log) for role in self.roles
        ]
        return self

    def __exit__(self, *_):
        for process in (*self.beside, self.process):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.log.close()

    def request(self, method, path, body=None):
        """Returns status and text, or None while nothing answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return None
        finally:
            connection.close()

    def status(self):
        answer = self.request("GET", "/v1/status")
        return json.loads(answer[1]) if answer and answer[0] == 200 else None

    def computing(self):
        """Returns how many steps run, streams aside."""
        answer = self.request("GET", "/metrics")
        for line in (answer[1] if answer else "").splitlines():
            if line.startswith("hydromesh_runs_running "):
                return float(line.split()[1]) - len(ALWAYS_RUN)
        return 0

    def settle(self):
        """Waits until all products are deployed and published and nothing has run for a while; returns the seconds it took."""
        deadline = time.monotonic() + START_WITHIN_S
        before, since = None, time.monotonic()
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                fail(f"hydromesh up ended with {self.process.returncode}; see {self.folder / 'up.log'}")
            status = self.status()
            seen = None
            if status:
                products = status["products"]
                seen = [(it["product"], it["generation"], [(p["port"], p["version"], p["partitions"]) for p in it["ports"]]) for it in products]
                done = len(products) == PRODUCTS and all(
                    it["generation"] and it["ports"] and all(p["version"] > 0 for p in it["ports"])
                    and (it["product"] in ALWAYS_RUN or not it["running"])
                    for it in products
                )
                if not done or seen != before:
                    since = time.monotonic()
                if done and time.monotonic() - since >= QUIET_S:
                    return since - self.begun
            before = seen
            time.sleep(1)
        fail(f"the example mesh did not come to rest within {START_WITHIN_S} s; see {self.folder / 'up.log'}")
        return None

    def memory_mib(self):
        """Returns resident memory now and its peak."""
        fields = {}
        with open(f"/proc/{self.process.pid}/status") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key in ("VmRSS", "VmHWM", "RssAnon", "RssFile"):
                    fields[key] = int(value.split()[0]) / 1024
        return fields

    def backfill(self, product, key):
        """Asks for all days of a product again, by the command that `hydromesh backfill` sends."""
        body = {
            "verb": "backfill", "product": product, "from": self.first.isoformat(), "to": self.last.isoformat(),
            "reason": "benchmark", "key": key, "actor": "bench",
        }
        answer = self.request("POST", "/v1/commands", body)
        if answer is None or answer[0] not in (200, 202):
            say(f"backfill of {product}: {answer}")
            return False
        return True

    def change_query(self):
        """Pushes another query of customer/customer-360: all its days are due, and each is published anew."""
        file = self.mesh / "domains/customer/customer-360/customer_360.sql"
        self.changes += 1
        # Fewer than a million pieces of money per order: the rows stay the same, the meaning does not.
        text = re.sub(r"(WHERE orders\.status <> 'cancelled').*", rf"\1 AND orders.amount < {1_000_000 + self.changes}", file.read_text())
        file.write_text(text)
        git("commit", "--quiet", "--all", "--message", f"Change the query, {self.changes}", cwd=self.mesh)
        git("push", "--quiet", str(self.repository), "HEAD:main", cwd=self.mesh)
        return True
