"""A graph of tasks that do nothing, on another orchestrator. Runs in that one's own Python.

    PYTHON loop_peers.py dagster|prefect|airflow FOLDER TASKS

Prints one line of JSON: tasks, seconds from the start of the run to its end, and how it was run. Only the run is timed: not the
imports, not the making of the graph, not the start of a server. What was started is ended, also when the run fails or is told to end.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path

WIDTH = 50


def reads(number):
    """The tasks of the layer above that a task reads: the same graph as examples/durable_loop/mesh.rs."""
    above = number - WIDTH
    if above < 0:
        return []
    return sorted({above, above - above % WIDTH + (above + 1) % WIDTH})


def dagster(folder, tasks):
    os.environ["DAGSTER_HOME"] = folder
    open(os.path.join(folder, "dagster.yaml"), "w").write("telemetry:\n  enabled: false\n")
    import dagster as dg

    def made(number):
        # What dagster passes on would be written as files; only the order matters here.
        @dg.asset(name=f"p{number:05}", deps=[f"p{it:05}" for it in reads(number)])
        def nothing() -> None:
            return None

        return nothing

    assets = [made(number) for number in range(tasks)]
    with dg.DagsterInstance.get() as instance:
        begun = time.perf_counter()
        result = dg.materialize(assets, instance=instance)
        seconds = time.perf_counter() - begun
        assert result.success and len(result.get_asset_materialization_events()) == tasks
    return seconds, "Dagster, one process, SQLite"


def prefect(folder, tasks):
    os.environ.update(
        PREFECT_HOME=folder, PREFECT_LOGGING_LEVEL="ERROR", PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true",
        PREFECT_SERVER_ANALYTICS_ENABLED="false", PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
    )
    from prefect import flow, task
    from prefect.states import Completed
    from prefect.task_runners import ThreadPoolTaskRunner

    @task
    def nothing():
        return Completed()

    @flow
    def warm():
        nothing.submit().wait()

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=64))
    def graph():
        futures = []
        for number in range(tasks):
            futures.append(nothing.submit(wait_for=[futures[it] for it in reads(number)]))
        return [future.state.is_completed() for future in futures if future.wait() is None]

    # Starts the server and its database.
    warm()
    begun = time.perf_counter()
    states = graph()
    seconds = time.perf_counter() - begun
    assert len(states) == tasks and all(states)
    return seconds, "Prefect, local server, SQLite, 64 threads"


# An operator that is empty would be marked as done and never run, so the tasks call a function.
AIRFLOW_GRAPHS = """
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

def nothing():
    return None

for name, edges in {graphs}.items():
    with DAG(name, schedule=None, max_active_tasks=64):
        made = []
        for above in edges:
            task = PythonOperator(task_id=f"p{{len(made):05}}", python_callable=nothing, do_xcom_push=False)
            for number in above:
                made[number] >> task
            made.append(task)
"""


def airflow(folder, tasks):
    folder = os.path.abspath(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = f"http://127.0.0.1:{port}"
    settings = {
        "core": {
            "executor": "LocalExecutor", "parallelism": 64, "max_active_tasks_per_dag": 64, "load_examples": False, "dags_folder": f"{folder}/dags",
            "dags_are_paused_at_creation": False, "execution_api_server_url": f"{server}/execution/",
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{folder}/airflow.db"},
        "api": {"base_url": server},
        "api_auth": {"jwt_secret": secrets.token_hex(32)},
        # It sleeps only after a round in which there was nothing to do. 0 is as many as the parallelism.
        "scheduler": {"scheduler_idle_sleep_time": 0.1, "max_tis_per_query": 0},
        "logging": {"logging_level": "ERROR"},
        "usage_data_collection": {"enabled": False},
    }
    env = {f"AIRFLOW__{section}__{key}".upper(): str(value) for section, keys in settings.items() for key, value in keys.items()}
    env = {**os.environ, **env, "AIRFLOW_HOME": folder, "SCARF_ANALYTICS": "false", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "airflow"]

    def call(*words):
        done = subprocess.run([*command, *words], env=env, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, f"airflow {' '.join(words)}: {(done.stderr or done.stdout)[-2000:]}"

    def ask(query, *values):
        with contextlib.closing(sqlite3.connect(f"{folder}/airflow.db", timeout=30)) as database:
            return database.execute(query, values).fetchall()

    def run(graph):
        call("dags", "trigger", graph)
        while True:
            [(run_id, state, queued, ended)] = ask("SELECT run_id, state, queued_at, end_date FROM dag_run WHERE dag_id = ?", graph)
            if state in ("success", "failed"):
                break
            alive(processes)
            time.sleep(0.5)
        states = ask("SELECT state, count(*) FROM task_instance WHERE dag_id = ? AND run_id = ? GROUP BY state", graph, run_id)
        assert state == "success" and states == [("success", len(graphs[graph]))], f"{graph}: {state}, {states}"
        return (datetime.fromisoformat(ended) - datetime.fromisoformat(queued)).total_seconds()

    graphs = {"warm": [[]], "graph": [reads(number) for number in range(tasks)]}
    Path(folder, "dags").mkdir()
    Path(folder, "dags", "graphs.py").write_text(AIRFLOW_GRAPHS.format(graphs=json.dumps(graphs)))
    call("db", "migrate")
    # Reads the graphs once, so nothing has to look for changes of them while they run.
    call("dags", "reserialize")
    processes = []
    try:
        for words in (["api-server", "--host", "127.0.0.1", "--port", str(port)], ["scheduler", "--skip-serve-logs"]):
            with open(f"{folder}/{words[0]}.log", "wb") as log:
                processes.append(
                    subprocess.Popen(
                        [*command, *words], env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    )
                )
        while not answers(f"{server}/execution/health"):
            alive(processes)
            time.sleep(0.5)
        run("warm")
        return run("graph"), "Airflow, LocalExecutor, SQLite, 64 processes"
    finally:
        end(processes)


def answers(url):
    # A proxy that the environment names is not asked for what runs here.
    with contextlib.suppress(OSError):
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return answer.status == 200
    return False


def alive(processes):
    for process in processes:
        assert process.poll() is None, f"ended with {process.returncode}: {' '.join(process.args)}"


def end(processes, within_s=15):
    """Ends processes that began a session each, and then all that is left of the sessions: their children may be in groups of their own."""
    deadline = time.monotonic() + within_s
    for process in processes:
        process.terminate()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0, deadline - time.monotonic()))
    for process in processes:
        while left := session(process.pid):
            for number in left:
                with contextlib.suppress(OSError):
                    os.kill(number, signal.SIGKILL)
            process.poll()
            time.sleep(0.1)


def session(leader):
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(int(entry.name)) == leader:
                found.append(int(entry.name))
    return found


def main():
    def told_to_end(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(143)

    signal.signal(signal.SIGTERM, told_to_end)
    name, folder, tasks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    seconds, how = {"dagster": dagster, "prefect": prefect, "airflow": airflow}[name](folder, tasks)
    print(json.dumps({"tasks": tasks, "seconds": seconds, "how": how}), flush=True)


if __name__ == "__main__":
    main()
