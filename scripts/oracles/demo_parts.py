#!/usr/bin/env python3
"""Plays the demo on the example and on three meshes that differ from it in one place, and compares what they print.

    scripts/oracles/demo_parts.py BINARY FOLDER [--base FILE] [--at-once N]

Removing a product, changing one row and changing one rule must each change exactly the corresponding part of the
demo's object. What depends on the moment at which the story ended (values of the live stream, statistics over it) is
compared by its shape; everything else must be equal. FOLDER keeps the meshes, their states and what was printed;
--base takes the object of a demo that was played before instead of playing the unchanged example again.

Prints a line per mesh, and `N passed, M failed`. Needs Python 3 and nothing else.
"""

import argparse
import concurrent.futures
import copy
import datetime
import json
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "mesh-repo-example"
PORT = 18110
# Longest wait for a part of a story, seconds: several demos share the cores.
PATIENCE = "900"


def replace(path, old, new):
    """Replaces a text that must be there."""
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise SystemExit(f"{path} lacks {old!r}; has the example changed?")
    path.write_text(text.replace(old, new), encoding="utf-8")


def without_product(mesh):
    shutil.rmtree(mesh / "domains/support/article-search")


def with_another_row(mesh):
    articles = mesh / "domains/support/articles/data/articles.jsonl"
    replace(articles, "You can get a refund for your order within 30 days", "You can get a refund for your order within 45 days")


def with_another_rule(mesh):
    """The mesh's own rule now also speaks of mail addresses, which only the pull request of the story adds."""
    rule = mesh / "policies/runbook_host.rego"
    replace(
        rule,
        "\tnot startswith(input.product.runbook, handbook)\n",
        '\tinput.product.id == "customer/customer-360"\n\tsome contract in input.contracts\n'
        '\tsome column in contract.columns\n\tcolumn.name == "email"\n',
    )
    # Its tests are of the old rule.
    (mesh / "policies/runbook_host_test.rego").unlink()


def expect_without_product(wanted):
    wanted["products"] -= 1
    wanted["pipelines"]["embedding"] -= 1
    wanted["decisions"]["allow"] -= 1
    wanted["search"] = None
    wanted["runs"] = {step: n for step, n in wanted["runs"].items() if not step.startswith("support/article-search:")}
    # The product's page and nothing else.
    wanted["site"]["pages"] -= 1


def expect_another_row(wanted):
    wanted["search"]["text"] = wanted["search"]["text"].replace("30 days", "45 days")


def expect_another_rule(wanted):
    wanted["decisions"]["denied"].append({"product": "customer/customer-360", "rule": "runbook-host"})


VARIANTS = [
    ("a product less", without_product, expect_without_product),
    ("another row", with_another_row, expect_another_row),
    ("another rule", with_another_rule, expect_another_rule),
]


def play(binary, folder, mesh, port):
    """Plays a mesh; returns its object, its state folder and how long it took."""
    state = folder / "demo"
    started = time.monotonic()
    with open(folder / "story.txt", "wb") as story:
        command = [binary, "demo", "--once", "--format", "json", "--state", state, "--listen", f"127.0.0.1:{port}"]
        ran = subprocess.run([*command, "--patience", PATIENCE, "--repo", mesh], stdout=subprocess.PIPE, stderr=story, check=False)
    took = time.monotonic() - started
    (folder / "object.json").write_bytes(ran.stdout)
    if ran.returncode != 0:
        raise RuntimeError(f"ended with {ran.returncode} after {took:.0f} s; see {folder / 'story.txt'}")
    return json.loads(ran.stdout), state / "state", took


def computed(binary, state):
    """Counts how often each partition was computed with success. How steps cut them depends on what was ready when, and
    comparisons for drift follow the clock: how many of those there are says nothing."""
    ran = subprocess.run(
        [binary, "runs", "--state", state, "--limit", "100000", "--format", "json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    counts = {}
    for run in json.loads(ran.stdout)["runs"]:
        step = run["step"]
        if run["state"] == "succeeded" and not step.endswith(("@drift", "@follow")):
            for partition in partitions(step):
                counts[partition] = counts.get(partition, 0) + 1
    return counts


def partitions(step):
    """Returns the days of a step such as commerce/orders:orders-daily@2026-08-03..2026-08-17; any other step is one itself."""
    pipeline, _, work = step.rpartition("@")
    first, dots, last = work.partition("..")
    if not dots:
        return [step]
    day, last = datetime.date.fromisoformat(first), datetime.date.fromisoformat(last)
    return [f"{pipeline}@{day + datetime.timedelta(days=it)}" for it in range((last - day).days + 1)]


def lasting_pages(state):
    """Counts the site's pages but for those of incidents, of which a slow machine may have more."""
    manifest = json.loads((state / "site/current/manifest.json").read_bytes())
    pages = [name for name in manifest["files"] if name.endswith(".html")]
    return sum(name == "incidents/index.html" or not name.startswith("incidents/") for name in pages)


def comparable(printed, state, runs):
    """Returns the object without what depends on the moment of its end."""
    result = copy.deepcopy(printed)
    del result["commit"]
    result["site"] = {"pages": lasting_pages(state)}
    result["runs"] = runs
    result["failed"] = printed["runs"]["failed"]
    for value in (result["features"] or {}).get("features", {}).values():
        if value.get("source") == "stream":
            value["value"] = "of the moment"
            value["as_of"] = value["version"] = None
    for moment in ("as_of", "watermark", "now"):
        (result["features"] or {}).pop(moment, None)
    result["drift"] = {"feature": result["drift"]["feature"], "drifted": result["drift"]["p_value"] < 0.01}
    result["model"] = {"champion": result["model"]["champion"], "useful": result["model"]["auc"] > 0.7}
    if result["search"]:
        # Depends on the number of the table's versions.
        result["search"].pop("version", None)
        result["search"]["score"] = round(result["search"]["score"], 1)
    # On a slow machine half a minute without an epoch is half an hour of the demo's clock: a second episode of a kind.
    # What is held when the story ends is nobody's alert yet, and may be told or over a moment later.
    alerts = {(it["product"], it["kind"], it["state"]) for it in result["alerts"] if it["state"] != "held"}
    result["alerts"] = sorted(" ".join(it) for it in alerts)
    result["decisions"]["denied"].sort(key=lambda it: (it["product"], it["rule"]))
    return result


def differences(wanted, found, path=""):
    """Yields the places at which two objects differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            yield from differences(wanted.get(key), found.get(key), f"{path}.{key}")
    elif wanted != found:
        yield f"{path.lstrip('.')}: {json.dumps(wanted)} was wanted, {json.dumps(found)} was found"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--base", type=pathlib.Path, help="state folder of a demo whose object.json lies beside it")
    parser.add_argument("--at-once", type=int, default=1, help="demos at the same time (default 1)")
    args = parser.parse_args()
    # Their parents are ours; what else lies there is not.
    for name, _, _ in [("the example", None, None), *VARIANTS]:
        shutil.rmtree(args.folder / name.replace(" ", "-"), ignore_errors=True)
    args.folder.mkdir(parents=True, exist_ok=True)

    def one(number, name, change):
        folder = args.folder / name.replace(" ", "-")
        mesh = folder / "mesh"
        shutil.copytree(EXAMPLE, mesh)
        change(mesh)
        printed, state, took = play(args.binary, folder, mesh, PORT + number)
        print(f"{name}: played in {took:.0f} s", flush=True)
        return comparable(printed, state, computed(args.binary, state))

    with concurrent.futures.ThreadPoolExecutor(args.at_once) as pool:
        if args.base:
            printed = json.loads((args.base.parent / "object.json").read_bytes())
            state = args.base / "state"
            base = pool.submit(lambda: comparable(printed, state, computed(args.binary, state)))
        else:
            base = pool.submit(one, 0, "the example", lambda mesh: None)
        played = [pool.submit(one, number, name, change) for number, (name, change, _) in enumerate(VARIANTS, 1)]
        passed = failed = 0
        for (name, _, expect), future in zip(VARIANTS, played):
            try:
                wanted = copy.deepcopy(base.result())
                expect(wanted)
                wrong = list(differences(wanted, future.result()))
            except (RuntimeError, KeyError, TypeError) as error:
                wrong = [repr(error)]
            if wrong:
                failed += 1
                print(f"{name}: more or less than its part changed", *wrong, sep="\n  ")
            else:
                passed += 1
                print(f"{name}: exactly its part changed")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
