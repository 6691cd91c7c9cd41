"""A graph of tasks that do nothing, on another orchestrator. Runs in that one's own Python.

    PYTHON loop_peers.py dagster|prefect FOLDER TASKS

Prints one line of JSON: tasks, seconds from the start of the run to its end, and how it was run. Only the run is timed: not the
imports, not the making of the graph, not the start of a server.
"""

import json
import os
import sys
import time

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


def main():
    name, folder, tasks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    seconds, how = {"dagster": dagster, "prefect": prefect}[name](folder, tasks)
    print(json.dumps({"tasks": tasks, "seconds": seconds, "how": how}), flush=True)


if __name__ == "__main__":
    main()
