"""What the figures share: running a program and weighing it, rows of the closing table, folders. Standard library only."""

import json
import math
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hydromesh" / "bench"


def say(text):
    """Speaks on stderr: stdout belongs to the rows."""
    print(text, file=sys.stderr, flush=True)


def fail(text):
    say(f"bench: {text}")
    sys.exit(1)


@dataclass(frozen=True)
class Weighed:
    wall_s: float
    cpu_s: float
    rss_mib: float
    code: int


def weigh(argv, *, cwd=None, env=None, timeout_s=600):
    """Runs a program to its end and returns its wall and CPU seconds, its peak resident memory and its exit code.

    The kernel's figure for the peak starts at what the parent held when it forked, so this process must stay small: it is some
    15 MiB, below anything that is weighed here. Children of the program count with the largest of them, not with their sum.
    """
    with open(os.devnull, "rb") as nothing, open(os.devnull, "wb") as sink:
        begun = time.perf_counter()
        child = subprocess.Popen(argv, cwd=cwd, env=env, stdin=nothing, stdout=sink, stderr=sink)
        pid, status, usage = wait(child.pid, begun + timeout_s)
        wall = time.perf_counter() - begun
    if pid == 0:
        child.kill()
        child.wait()
        fail(f"{Path(argv[0]).name} did not end within {timeout_s} s")
    child.returncode = os.waitstatus_to_exitcode(status)
    return Weighed(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, child.returncode)


def wait(pid, deadline):
    # A blocking wait is exact; only a run that is far too long has to be polled, and nobody times that.
    def alarm(_signal, _frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, max(0.1, deadline - time.perf_counter()))
    try:
        return os.wait4(pid, 0)
    except TimeoutError:
        return 0, 0, resource.getrusage(resource.RUSAGE_CHILDREN)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_code(weighed, what, wanted=(0,)):
    if weighed.code not in wanted:
        fail(f"{what} ended with {weighed.code}; run it by hand to see why")


def row(figure, values, unit, *, promised=None, limit=None, peer=None, peer_values=None, note=""):
    """Writes one row of the closing table as a line of JSON."""
    print(
        json.dumps(
            {
                "figure": figure, "values": list(values), "unit": unit, "promised": promised, "limit": limit,
                "peer": peer, "peer_values": list(peer_values or []), "note": note,
            }
        ),
        flush=True,
    )


def quantile(values, share):
    """Returns the smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values):
    return statistics.median(values)


def show(values, digits=2):
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def load():
    return f"load {os.getloadavg()[0]:.1f}"


def fresh(folder):
    """Returns an empty folder. Only folders below the bench's own cache are ever emptied."""
    folder = Path(folder)
    assert CACHE in folder.parents, folder
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def git(*args, cwd=None):
    """Runs git without the user's settings, and with one author and date, so that equal files make equal commits."""
    env = {
        "PATH": os.environ["PATH"], "HOME": str(CACHE), "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "Platform team", "GIT_AUTHOR_EMAIL": "data-platform@larchandpine.example",
        "GIT_COMMITTER_NAME": "Platform team", "GIT_COMMITTER_EMAIL": "data-platform@larchandpine.example",
        "GIT_AUTHOR_DATE": "2026-11-01T08:00:00Z", "GIT_COMMITTER_DATE": "2026-11-01T08:00:00Z",
    }
    done = subprocess.run(["git", *args], cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"git {args[0]}: {done.stderr.strip()}")


def bare(folder, target):
    """Commits all files of a folder to a new bare repository, packed as one that was pushed to is."""
    if target.exists():
        shutil.rmtree(target)
    git("init", "--quiet", "--initial-branch=main", cwd=folder)
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--message", "Start the mesh", cwd=folder)
    git("clone", "--quiet", "--bare", "--no-local", str(folder), str(target))
    return target


def clean_env(**more):
    """The environment of what is measured: nothing of the user's that could change it."""
    return {"PATH": os.environ["PATH"], "HOME": str(CACHE), "LANG": "C.UTF-8", "NO_COLOR": "1", **more}
