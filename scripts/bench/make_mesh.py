#!/usr/bin/env python3
"""Writes a believable mesh of many products, and the same graph as a project of each peer.

    scripts/bench/make_mesh.py FOLDER [--products 1000] [--seed 7] [--peers]

FOLDER/mesh is a mesh for Hydromesh, FOLDER/dbt and FOLDER/sqlmesh (with --peers) hold the same products as models with the
same names of columns, the same edges and the same queries, FOLDER/graph.json says what was made. The same arguments
write the same bytes: a figure that moves is then the program's doing, not the mesh's.

A product reads one to four others, mostly of its own domain, from any earlier layer. Queries are of the kinds that
people write (clean, roll up, join after aggregating, moving averages, top lists, unions), each typed against the contracts of what it
reads, so `hydromesh check` finds nothing. Needs nothing beside Python's standard library.
"""

import argparse
import json
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

START = "2026-08-03"

# Domains, what one row of theirs is about, and the nouns that their products are named after. No noun is in two domains,
# so the name of a port is that of one product and needs no alias where it is read.
DOMAINS = {
    "accounts": ("account", ["ledgers", "postings", "balances", "statements"]),
    "billing": ("account", ["invoices", "reminders", "credits", "dunnings"]),
    "campaigns": ("customer", ["mailings", "vouchers", "audiences", "banners"]),
    "catalog": ("item", ["items", "bundles", "attributes", "pictures"]),
    "checkout": ("customer", ["carts", "baskets", "checkouts", "abandons"]),
    "claims": ("customer", ["claims", "warranties", "appraisals", "settlements"]),
    "commerce": ("customer", ["orders", "order_lines", "receipts", "exchanges"]),
    "contact": ("customer", ["calls", "chats", "complaints", "callbacks"]),
    "customer": ("customer", ["customers", "households", "consents", "addresses"]),
    "delivery": ("parcel", ["tours", "stops", "deliveries", "delays"]),
    "energy": ("store", ["meters", "tariffs", "consumption", "outages"]),
    "fraud": ("account", ["suspicions", "blocks", "chargebacks", "disputes"]),
    "freight": ("parcel", ["containers", "waybills", "customs", "crossings"]),
    "inventory": ("item", ["stock", "counts", "shrinkage", "transfers"]),
    "kitchen": ("item", ["recipes", "batches", "tastings", "allergens"]),
    "loyalty": ("customer", ["points", "rewards", "tiers", "birthdays"]),
    "payments": ("account", ["payments", "refunds", "payouts", "mandates"]),
    "people": ("store", ["shifts", "absences", "trainings", "rosters"]),
    "pricing": ("item", ["prices", "markdowns", "competitors", "quotes"]),
    "procurement": ("supplier", ["tenders", "contracts", "purchases", "approvals"]),
    "quality": ("supplier", ["inspections", "defects", "recalls", "certificates"]),
    "search": ("customer", ["queries", "suggestions", "rankings", "synonyms"]),
    "stores": ("store", ["tills", "footfall", "openings", "shelves"]),
    "suppliers": ("supplier", ["suppliers", "scorecards", "lead_times", "penalties"]),
    "web": ("customer", ["page_views", "sign_ups", "reviews", "wish_lists"]),
}

# What is measured: a stem and whether it is counted in whole numbers.
STEMS = {
    "pieces": int, "visits": int, "attempts": int, "minutes": int, "errors": int, "lines": int, "people": int,
    "amount": float, "cost": float, "margin": float, "weight": float, "distance": float, "score": float,
    "discount": float, "fee": float, "tax": float, "deposit": float, "emission": float,
}
STATES = ["open", "done", "cancelled", "held"]
CHANNELS = ["web", "app", "store", "phone"]
# Share of products by layer: sources first, then ever fewer, as in a mesh that grew.
LAYERS = [0.16, 0.26, 0.24, 0.18, 0.11, 0.05]
SQL_TYPES = {"string": "text", "date": "date", "timestamp": "timestamp", "integer": "bigint", "number": "double"}
PEER_TYPES = {"string": "varchar", "date": "date", "timestamp": "timestamp", "integer": "bigint", "number": "double"}


@dataclass(frozen=True)
class Column:
    name: str
    kind: str  # a logical type of the contract
    required: bool = False
    about: str = ""
    values: tuple = ()


@dataclass
class Node:
    domain: str
    noun: str
    name: str
    kind: str  # files, stream, feature or batch
    layer: int
    entity: str
    grain: str = "row"  # row, entity or region
    reads: list = field(default_factory=list)
    columns: list = field(default_factory=list)
    keys: list = field(default_factory=list)
    measures: list = field(default_factory=list)  # (name, stem) of columns that can be added up
    sql: str = ""
    shape: str = ""
    extra: dict = field(default_factory=dict)

    @property
    def port(self):
        return self.name.replace("-", "_")

    @property
    def id(self):
        return f"{self.domain}/{self.name}"

    @property
    def key_column(self):
        return f"{self.entity}_id"


def stem_type(stem):
    return "integer" if STEMS[stem] is int else "number"


def plain(name):
    """Returns the table as a mesh calls it: by its input port."""
    return name


# ---------------------------------------------------------------------------------------------------------------------
# The graph
# ---------------------------------------------------------------------------------------------------------------------


def make_graph(count, rng):
    """Returns the products in an order in which each reads only earlier ones."""
    names = list(DOMAINS)
    per_layer = [max(1, round(count * share)) for share in LAYERS]
    per_layer[1] += count - sum(per_layer)
    taken, nodes, by_layer = set(), [], []
    for layer, size in enumerate(per_layer):
        members = []
        for index in range(size):
            # Round robin first, so that every domain has sources of its own; at random later.
            domain = names[index % len(names)] if layer == 0 else rng.choice(names)
            entity, nouns = DOMAINS[domain]
            kind = "batch"
            if layer == 0:
                kind = "stream" if index % 4 == 3 else "files"
            members.append(Node(domain, rng.choice(nouns), "", kind, layer, entity))
        for node in members:
            if layer == 0:
                source(node, rng)
            else:
                derive(node, by_layer, rng)
            name(node, taken)
        by_layer.append(members)
        nodes.extend(members)
    return nodes


def name(node, taken):
    base = f"{node.noun}-{node.shape}".replace("_", "-").strip("-")
    text, number = base, 2
    while text in taken:
        text, number = f"{base}-{number}", number + 1
    taken.add(text)
    node.name = text


def pick_inputs(node, by_layer, rng):
    """One of the layer before, mostly of the own domain; the others from anywhere below."""
    earlier = [it for layer in by_layer for it in layer if it.kind != "feature"]
    last = [it for it in by_layer[-1] if it.kind != "feature"] or earlier
    own = [it for it in last if it.domain == node.domain] or [it for it in last if it.entity == node.entity]
    first = rng.choice(own) if own and rng.random() < 0.75 else rng.choice(last)
    wanted = rng.choices([1, 2, 3, 4], weights=[40, 30, 20, 10])[0]
    chosen = [first]
    while len(chosen) < wanted:
        pool = earlier
        if rng.random() < 0.4:
            pool = [it for it in earlier if it.domain == node.domain] or earlier
        other = rng.choice(pool)
        if other not in chosen:
            chosen.append(other)
    return chosen


# ---------------------------------------------------------------------------------------------------------------------
# Products: columns and queries. A query is kept as text with one {port} for each table it reads.
# ---------------------------------------------------------------------------------------------------------------------


def grain_columns(node):
    """The columns by which a row of the product is found again."""
    columns = [Column("business_date", "date", True, "Day (UTC)")]
    if node.grain in ("row", "entity"):
        columns.append(Column(node.key_column, "string", True, f"Number of the {node.entity}"))
    columns.append(Column("region", "string", True, "Sales region"))
    return columns


def source(node, rng):
    stems = rng.sample(list(STEMS), rng.randint(3, 6))
    node.grain = "row"
    node.shape = "events" if node.kind == "stream" else rng.choice(["", "export", "intake", "master"])
    row_id = f"{node.noun}_id" if node.kind == "files" else "event_id"
    state = Column("status", "string", True, "State of the row", tuple(STATES))
    channel = Column("channel", "string", True, "Where it came from, `unknown` when nobody knows")
    node.columns = [Column(row_id, "string", True, "Number of the row"), *grain_columns(node), state, channel]
    node.measures = [(stem, stem) for stem in stems]
    node.columns += [Column(stem, stem_type(stem), False, f"{stem.capitalize()} of the row") for stem in stems]
    node.keys = [row_id]
    node.extra["row_id"] = row_id
    listed = "\n".join(f"  {stem}," for stem in stems)
    if node.kind == "stream":
        node.columns.insert(1, Column("ts", "timestamp", True, "When it happened (UTC)"))
        node.sql = (
            f"SELECT\n  event_id,\n  ts,\n  CAST(ts AS DATE) AS business_date,\n  {node.key_column},\n"
            f"  COALESCE(region, 'unknown') AS region,\n  COALESCE(status, 'open') AS status,\n{listed}\n"
            f"  COALESCE(channel, 'unknown') AS channel\nFROM {{raw}}\nWHERE {node.key_column} IS NOT NULL\n"
        )
    else:
        node.columns.append(Column("updated_at", "timestamp", True, "When the row last changed (UTC)"))
        node.sql = (
            "-- The export holds a row for every change; the latest one counts.\n"
            f"WITH ranked AS (\n  SELECT\n    *,\n    ROW_NUMBER() OVER (PARTITION BY {row_id} ORDER BY updated_at DESC) AS newest_first\n"
            f"  FROM {{raw}}\n)\nSELECT\n  {row_id},\n  CAST(business_date AS DATE) AS business_date,\n  {node.key_column},\n"
            f"  COALESCE(NULLIF(region, ''), 'unknown') AS region,\n  status,\n"
            f"  COALESCE(NULLIF(channel, ''), 'unknown') AS channel,\n{listed}\n"
            "  CAST(updated_at AS TIMESTAMP) AS updated_at\nFROM ranked\nWHERE newest_first = 1\n"
        )


def derive(node, by_layer, rng):
    streams = [it for it in by_layer[0] if it.kind == "stream" and it.domain == node.domain]
    if node.layer == 1 and streams and rng.random() < 0.12:
        return feature(node, rng.choice(streams))
    node.reads = pick_inputs(node, by_layer, rng)
    if len(node.reads) > 1:
        shape = combined if rng.random() < 0.85 else union
    else:
        only = node.reads[0]
        shapes = [rollup, trend, top] if only.grain != "row" else [rollup, rollup, clean, trend, top]
        shape = rng.choice(shapes)
    shape(node, rng)
    return None


def inherit(node):
    """A product about one entity stays with it; one that mixes entities is by region."""
    entities = {it.entity for it in node.reads}
    if len(entities) == 1 and all(it.grain != "region" for it in node.reads):
        node.entity, node.grain = entities.pop(), "entity"
    else:
        node.grain = "region"


def keys_of(node):
    return [column.name for column in grain_columns(node)]


def some(upstream, rng, most):
    """Some measures of a product, no two of one stem: what is derived is named after the stem."""
    shuffled = rng.sample(upstream.measures, len(upstream.measures))
    distinct = list({stem: (column, stem) for column, stem in shuffled}.values())
    return distinct[: rng.randint(1, most)]


def filtered(upstream, rng):
    if upstream.grain != "row":
        return ""
    return rng.choice(["WHERE status <> 'cancelled'\n", "WHERE status IN ('open', 'done')\n", ""])


def total(stem, column):
    zero = "0" if STEMS[stem] is int else "0.0"
    return f"COALESCE(SUM({column}), {zero})"


def rollup(node, rng):
    """GROUP BY over one input."""
    up = node.reads[0]
    inherit(node)
    if node.grain == "entity" and rng.random() < 0.5:
        node.grain = "region"
    node.shape = {"entity": f"by-{node.entity}", "region": "by-region"}[node.grain]
    node.keys = keys_of(node)
    node.columns = [*grain_columns(node), Column("row_count", "integer", True, "Rows that were added up")]
    lines = ["  COUNT(*) AS row_count,"]
    for column, stem in some(up, rng, 4):
        node.columns.append(Column(f"total_{stem}", stem_type(stem), True, f"Sum of {column}"))
        node.columns.append(Column(f"mean_{stem}", "number", False, f"Mean of {column}"))
        node.measures.append((f"total_{stem}", stem))
        lines.append(f"  {total(stem, column)} AS total_{stem},\n  AVG({column}) AS mean_{stem},")
    keys = ", ".join(node.keys)
    body = "\n".join(lines).rstrip(",")
    node.sql = f"SELECT\n  {keys},\n{body}\nFROM {{{up.port}}}\n{filtered(up, rng)}GROUP BY {keys}\n"


def clean(node, rng):
    """One input, row by row."""
    up = node.reads[0]
    node.entity, node.grain, node.shape = up.entity, "row", "clean"
    node.extra["row_id"] = row_id = up.extra["row_id"]
    node.keys = [row_id]
    kept = some(up, rng, 5)
    node.measures = kept
    state = Column("status", "string", True, "State of the row", tuple(STATES))
    node.columns = [Column(row_id, "string", True, "Number of the row"), *grain_columns(node), state]
    node.columns.append(Column("channel_group", "string", True, "Online or on site", ("online", "on_site")))
    node.columns += [Column(column, stem_type(stem), True, f"{stem.capitalize()}, 0 when nobody knows") for column, stem in kept]
    values = "\n".join(
        f"  COALESCE({column}, {'0' if STEMS[stem] is int else '0.0'}) AS {column}," for column, stem in kept
    ).rstrip(",")
    # Only sources have a channel; a cleaned table of a cleaned table has its group already.
    if any(column.name == "channel" for column in up.columns):
        group = "CASE WHEN channel IN ('web', 'app') THEN 'online' ELSE 'on_site' END AS channel_group"
    else:
        group = "channel_group"
    node.sql = (
        f"SELECT\n  {row_id},\n  {', '.join(keys_of(node))},\n  status,\n  {group},\n{values}\n"
        f"FROM {{{up.port}}}\nWHERE status <> 'held'\n"
    )


def trend(node, rng):
    """Window functions over a daily aggregate."""
    up = node.reads[0]
    inherit(node)
    node.shape = "trend"
    node.keys = keys_of(node)
    [(column, stem)] = rng.sample(up.measures, 1)
    apart = [key for key in node.keys if key != "business_date"]
    keys = ", ".join(node.keys)
    name_, kind = f"total_{stem}", stem_type(stem)
    node.columns = [
        *grain_columns(node),
        Column(name_, kind, True, f"Sum of {column}"),
        Column(f"week_{stem}", "number", False, "Mean of seven rows"),
        Column(f"before_{stem}", kind, False, "The day before"),
        Column("is_rising", "string", True, "Against the day before", ("yes", "no")),
    ]
    node.measures = [(name_, stem)]
    window = f"PARTITION BY {', '.join(apart)} ORDER BY business_date"
    node.sql = (
        f"WITH daily AS (\n  SELECT {keys}, {total(stem, column)} AS {name_}\n  FROM {{{up.port}}}\n"
        f"  {filtered(up, rng).strip() or 'WHERE region IS NOT NULL'}\n  GROUP BY {keys}\n),\nwindowed AS (\n  SELECT\n    {keys},\n    {name_},\n"
        f"    AVG({name_}) OVER ({window} ROWS BETWEEN 6 PRECEDING AND CURRENT ROW) AS week_{stem},\n"
        f"    LAG({name_}) OVER ({window}) AS before_{stem}\n  FROM daily\n)\n"
        f"SELECT\n  {keys},\n  {name_},\n  week_{stem},\n  before_{stem},\n"
        f"  CASE WHEN {name_} > before_{stem} THEN 'yes' ELSE 'no' END AS is_rising\nFROM windowed\n"
    )


def top(node, rng):
    """The largest few of each day."""
    up = node.reads[0]
    inherit(node)
    node.shape = "top"
    [(column, stem)] = rng.sample(up.measures, 1)
    node.keys = keys_of(node)
    keys = ", ".join(node.keys)
    node.columns = [
        *grain_columns(node),
        Column(f"total_{stem}", stem_type(stem), True, f"Sum of {column}"),
        Column("place", "integer", True, "1 is the largest of its day"),
    ]
    node.measures = [(f"total_{stem}", stem)]
    node.sql = (
        f"WITH summed AS (\n  SELECT {keys}, {total(stem, column)} AS total_{stem}\n  FROM {{{up.port}}}\n  GROUP BY {keys}\n  HAVING COUNT(*) > 0\n),\n"
        f"placed AS (\n  SELECT\n    {keys},\n    total_{stem},\n"
        f"    CAST(ROW_NUMBER() OVER (PARTITION BY business_date ORDER BY total_{stem} DESC, {', '.join(node.keys[1:])}) AS BIGINT) AS place\n"
        f"  FROM summed\n)\nSELECT {keys}, total_{stem}, place\nFROM placed\nWHERE place <= {rng.choice([10, 50, 100])}\n"
    )


def combined(node, rng):
    """Aggregates each input to a common grain, then joins them."""
    inherit(node)
    node.shape = rng.choice(["overview", "joined", "summary", "scorecard"])
    node.keys = keys = keys_of(node)
    node.columns = grain_columns(node)
    parts, selected, wholes = [], [], []
    for index, up in enumerate(node.reads):
        alias = f"part_{index + 1}"
        sums = []
        for column, stem in some(up, rng, 3):
            # The noun tells two inputs' equal measures apart.
            out = f"{up.noun}_{stem}"
            if any(it.name == out for it in node.columns):
                continue
            sums.append(f"{total(stem, column)} AS {out}")
            zero = "0" if STEMS[stem] is int else "0.0"
            selected.append(f"  {alias}.{out}," if index == 0 else f"  COALESCE({alias}.{out}, {zero}) AS {out},")
            node.columns.append(Column(out, stem_type(stem), True, f"Sum of {column} of {up.noun}"))
            node.measures.append((out, stem))
            wholes.append((f"{alias}.{out}", stem))
        listed = "".join(f",\n    {it}" for it in sums)
        where = filtered(up, rng)
        where = f"\n  {where.strip()}" if where else ""
        parts.append(f"{alias} AS (\n  SELECT\n    {', '.join(keys)}{listed}\n  FROM {{{up.port}}}{where}\n  GROUP BY {', '.join(keys)}\n)")
    if len(wholes) > 1:
        (over, _), (under, _) = rng.sample(wholes, 2)
        selected.append(f"  CAST({over} AS DOUBLE) / NULLIF(CAST({under} AS DOUBLE), 0.0) AS ratio,")
        node.columns.append(Column("ratio", "number", False, "One measure by another; null where the other is 0"))
    joins = "\n".join(
        f"LEFT JOIN part_{index + 2} ON " + " AND ".join(f"part_{index + 2}.{key} = part_1.{key}" for key in keys)
        for index in range(len(node.reads) - 1)
    )
    lines = "\n".join(f"  part_1.{key}," for key in keys) + "\n" + "\n".join(selected).rstrip(",")
    ctes = ",\n".join(parts)
    node.sql = f"WITH {ctes}\nSELECT\n{lines}\nFROM part_1\n{joins}\n"


def union(node, rng):
    """The same measure of several inputs, one below the other."""
    node.grain, node.shape = "region", "all"
    stem = rng.choice(list(STEMS))
    node.keys = ["business_date", "region", "origin"]
    node.columns = [
        *grain_columns(node),
        Column("origin", "string", True, "Where the rows come from"),
        Column("total_amount", "number", True, "Sum of the measure"),
        Column("row_count", "integer", True, "Rows that were added up"),
    ]
    node.measures = [("total_amount", "amount"), ("row_count", "lines")]
    parts = []
    for up in node.reads:
        column, stem = rng.choice(up.measures)
        value = f"CAST({column} AS DOUBLE)"
        parts.append(f"  SELECT business_date, region, '{up.noun}' AS origin, {value} AS amount\n  FROM {{{up.port}}}\n")
    body = "  UNION ALL\n".join(parts)
    node.sql = (
        f"WITH stacked AS (\n{body})\nSELECT\n  business_date,\n  region,\n  origin,\n"
        "  COALESCE(SUM(amount), 0.0) AS total_amount,\n  COUNT(*) AS row_count\nFROM stacked\nGROUP BY business_date, region, origin\n"
    )


def feature(node, up):
    """Sliding windows over a stream."""
    node.kind, node.reads, node.entity, node.grain = "feature", [up], up.entity, "entity"
    node.noun, node.shape = up.noun, "features"
    node.keys = [node.key_column, "as_of"]
    node.columns = [
        Column(node.key_column, "string", True, f"Number of the {node.entity}"),
        Column("as_of", "timestamp", True, "End of the windows (UTC)"),
    ]
    node.sql = f"SELECT {node.key_column}, ts, event_id, {', '.join(column for column, _ in up.measures)} FROM {{{up.port}}}\n"
    node.extra["features"] = [("events", "count()", ["1h", "1d", "7d"])]
    for column, stem in up.measures[:3]:
        if STEMS[stem] is float:
            node.extra["features"].append((column, f"sum({column})", ["1h", "1d", "7d"]))
            node.extra["features"].append((f"largest_{column}", f"max({column})", ["7d"]))
        else:
            node.extra["features"].append((column, f"sum({column})", ["1d"]))
    for label, agg, windows in node.extra["features"]:
        stem = agg.split("(")[1].rstrip(")")
        for window in windows:
            kind = stem_type(stem) if stem else "integer"
            node.columns.append(Column(f"{label}_{window}", kind, False, f"{label} of the last {window}"))


# ---------------------------------------------------------------------------------------------------------------------
# Writing: a mesh
# ---------------------------------------------------------------------------------------------------------------------


class Writer:
    """Writes texts below a folder and counts them."""

    def __init__(self, root):
        self.root, self.files, self.bytes = root, 0, 0

    def write(self, path, text):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode()
        target.write_bytes(data)
        self.files += 1
        self.bytes += len(data)


def raw_port(node):
    return f"{node.port}_raw"


def raw_columns(node):
    """An export's columns are texts that may be missing; a topic's are typed."""
    columns = []
    for column in node.columns:
        if node.kind == "stream" and column.name == "business_date":
            continue
        text = node.kind == "files" and column.kind in ("date", "timestamp")
        must = column.name in (node.extra["row_id"], node.key_column, "ts", "business_date", "status", "updated_at")
        if node.kind == "stream":
            must = column.name in (node.extra["row_id"], "ts")
        columns.append(Column(column.name, "string" if text else column.kind, must, column.about))
    return columns


def contract(node, port, columns, *, physical, keys=(), rng=None):
    head = (
        f"apiVersion: v3.2.0\nkind: DataContract\nid: {node.id}.{port}\nname: {port.replace('_', ' ').capitalize()}\n"
        f"version: 1.0.0\nstatus: active\ndomain: {node.domain}\ndataProduct: {node.name}\n"
        f"description:\n  purpose: {'What the source system hands over.' if rng is None else about(node)}\n"
        f"schema:\n  - name: {port}\n"
    )
    if physical == "topic":
        head += f"    physicalName: {port.replace('_', '-')}\n"
    lines = [head + f"    logicalType: object\n    physicalType: {physical}\n    properties:\n"]
    for column in columns:
        partitioned = physical == "table" and node.kind != "feature" and column.name == "business_date"
        place = keys.index(column.name) + 1 if column.name in keys else 0
        public = column.name in ("business_date", "region", "status", "channel", "channel_group", "place", "is_rising")
        fields = [f"name: {column.name}", f"logicalType: {column.kind}", f"physicalType: {SQL_TYPES[column.kind]}"]
        if column.required:
            fields.append("required: true")
        if place:
            fields.append("primaryKey: true")
            if len(keys) > 1:
                fields.append(f"primaryKeyPosition: {place}")
        if partitioned:
            fields.append("partitioned: true")
        fields.append(f"classification: {'public' if public else 'internal'}")
        fields.append(f'description: "{column.about}"')
        rules = []
        if physical == "table" and place == 1:
            rules.append(f"{{id: {dashed(column.name)}-present, metric: nullValues, mustBe: 0, severity: error, dimension: completeness}}")
            if len(keys) == 1:
                rules.append(f"{{id: {dashed(column.name)}-once, metric: duplicateValues, mustBe: 0, severity: error, dimension: uniqueness}}")
        if physical == "table" and column.values:
            values = ", ".join(f'"{it}"' for it in column.values)
            rules.append(
                f"{{id: {dashed(column.name)}-known, metric: invalidValues, arguments: {{validValues: [{values}]}}, "
                f"mustBe: 0, severity: {'error' if column.name == 'status' else 'warning'}, dimension: conformity}}"
            )
        if rules:
            lines.append("      - " + "\n        ".join(fields) + "\n        quality:\n" + "".join(f"          - {it}\n" for it in rules))
        else:
            lines.append("      - {" + ", ".join(fields) + "}\n")
    if rng is None:
        return "".join(lines)
    rules = [f"{{id: not-empty, metric: rowCount, mustBeGreaterThan: {rng.choice([0, 10, 100])}, severity: error, dimension: coverage}}"]
    if len(keys) > 1:
        rules.append(
            f"{{id: one-row-per-key, metric: duplicateValues, arguments: {{properties: [{', '.join(keys)}]}}, "
            "mustBe: 0, severity: error, dimension: uniqueness}"
        )
    if node.measures and rng.random() < 0.5:
        column = node.measures[0][0]
        rules.append(
            f'{{id: nothing-negative, type: sql, query: "SELECT COUNT(*) FROM {{object}} WHERE {column} < 0", mustBe: 0, '
            "severity: warning, dimension: accuracy}"
        )
    lines.append("    quality:\n" + "".join(f"      - {it}\n" for it in rules))
    moment = {"stream": "ts", "feature": "as_of"}.get(node.kind, "business_date")
    value, unit = {"stream": (30, "m"), "feature": (3, "h")}.get(node.kind, (2, "d"))
    lines.append(
        f"slaProperties:\n  - property: latency\n    value: {value}\n    unit: {unit}\n    element: {port}.{moment}\n    driver: operational\n"
        f"    customProperties:\n      - {{property: hydromesh.target, value: {rng.choice(['0.99', '0.995', '0.95'])}}}\n"
        "  - {property: qualityPassRate, value: 99, unit: percent}\n"
    )
    if rng.random() < 0.3:
        lines.append(f"  - {{property: retention, value: {rng.choice([2, 5, 10])}, unit: y, element: {port}.{moment}, driver: regulatory}}\n")
    return "".join(lines)


def dashed(text):
    return text.replace("_", "-")


def about(node):
    what = node.noun.replace("_", " ").capitalize()
    return {
        "files": f"{what}, each once, in the latest known state.",
        "stream": f"{what} as they happen, cleaned.",
        "feature": f"What each {node.entity} did of late, always current.",
    }.get(node.kind, f"{what}, {node.shape.replace('-', ' ')}, for each day.")


def product(node, rng):
    owner = f"{node.domain}-lead@larchandpine.example"
    if node.reads:
        inputs = "".join(f"  - {{name: {up.port}, version: 1.0.0, contractId: {up.id}.{up.port}}}\n" for up in node.reads)
    else:
        feed = f"hydromesh.topic, value: {dashed(raw_port(node))}" if node.kind == "stream" else 'hydromesh.files, value: "data/*.csv"'
        inputs = (
            f"  - name: {raw_port(node)}\n    version: 1.0.0\n    contractId: {node.id}.{raw_port(node)}\n"
            f"    customProperties:\n      - {{property: {feed}}}\n"
        )
    properties = []
    if node.extra.get("iceberg"):
        properties.append("{property: hydromesh.format, value: iceberg}")
    access = "table: true"
    if node.kind == "stream":
        access += ", topic: true"
    if node.kind == "feature":
        access += f", lookup: {{key: {node.key_column}}}"
    properties.append(f"{{property: hydromesh.access, value: {{{access}}}}}")
    kind = "sourceAligned" if not node.reads else "aggregate" if node.layer < 4 else "consumerAligned"
    return (
        f"apiVersion: v1.1.0\nkind: DataProduct\nid: {node.id}\nname: {node.name}\nversion: 1.0.0\nstatus: active\n"
        f"domain: {node.domain}\ntype: {kind}\ndescription:\n  purpose: {about(node)}\n"
        f"  limitations: The last two days can still change.\n  usage: Filter on the day, which is the partition.\n"
        f"inputPorts:\n{inputs}outputPorts:\n  - name: {node.port}\n    description: {about(node)}\n    version: 1.0.0\n"
        f"    contractId: {node.id}.{node.port}\n    customProperties:\n" + "".join(f"      - {it}\n" for it in properties) +
        f"team:\n  name: {node.domain.capitalize()}\n  members:\n    - {{username: {owner}, name: Lead of {node.domain}, role: owner}}\n"
        f"support:\n  - {{channel: {node.domain}, url: \"mailto:{node.domain}@larchandpine.example\", tool: email, scope: issues}}\n"
        f"customProperties:\n  - {{property: hydromesh.tier, value: {rng.choices([1, 2, 3], weights=[15, 45, 40])[0]}}}\n"
        f"  - {{property: hydromesh.runbook, value: \"https://runbooks.larchandpine.example/{node.id}\"}}\n"
    )


def pipeline(node, rng):
    head = "apiVersion: hydromesh/v1\n"
    if node.kind == "stream":
        return head + (
            f"kind: StreamPipeline\nname: {node.name}\noutput: {node.port}\nsql: {node.port}.sql\n"
            f"source: {{port: {raw_port(node)}, event_time: ts, event_id: event_id, watermark: {{bound: 30s, idle: 30s}}}}\n"
        )
    if node.kind == "feature":
        features = "".join(
            f"  - {{name: {label}, agg: {agg}, windows: [{', '.join(windows)}]}}\n" for label, agg, windows in node.extra["features"]
        )
        return head + (
            f"kind: FeaturePipeline\nname: {node.name}\noutput: {node.port}\nentity: {node.key_column}\n"
            f"source: {{port: {node.reads[0].port}, event_time: ts, event_id: event_id,\n         watermark: {{bound: 30s, idle: 30s}}, "
            "late: {allow: 2d, beyond: quarantine},\n         available: {assume: event_time + 10m}}\n"
            f"select: {node.port}.sql\nfeatures:\n{features}tail: {{error: 5%}}\n"
        )
    text = head + f"kind: BatchPipeline\nname: {node.name}\noutput: {node.port}\nsql: {node.port}.sql\n"
    text += f"partition: {{by: business_date, every: day, start: {START}, timezone: UTC}}\n"
    if not node.reads or rng.random() < 0.15:
        text += f'schedule: {{cron: "{rng.randrange(60)} {rng.randint(1, 5)} * * *", timezone: Europe/Zurich}}\n'
    text += f"lookback: {rng.choice(['1d', '2d', '3d'])}\nbackfill: {{chunk: {rng.choice(['7d', '15d', '30d'])}, concurrency: 2}}\n"
    if rng.random() < 0.2:
        text += "retry: {attempts: 3, backoff: {from: 10s, to: 10m}}\n"
    return text


def tables(node):
    return {up.port: up for up in node.reads}


def write_mesh(root, nodes, rng):
    out = Writer(root)
    out.write(
        "mesh.yaml",
        "apiVersion: hydromesh/v1\nkind: Mesh\nname: large\n\nenvironments:\n  dev:\n    ref: refs/heads/main\n"
        "    lake: {path: lake, format: delta}\n    state: {kind: sqlite}\n    stream: {kind: topic_folder}\n\n"
        "alerts:\n  routes:\n"
        + "".join(f"    - {{match: {{domain: {it}}}, mail: [{it}-oncall@larchandpine.example]}}\n" for it in DOMAINS)
        + "    - {match: {}, mail: [data-platform@larchandpine.example]}\n\nsite:\n  title: A large mesh\n",
    )
    for domain in sorted({node.domain for node in nodes}):
        out.write(
            f"domains/{domain}/domain.yaml",
            f"apiVersion: hydromesh/v1\nkind: Domain\nname: {domain}\ntitle: {domain.capitalize()}\n"
            f"owners: [{domain}-lead@larchandpine.example]\noncall: {domain}-oncall@larchandpine.example\ntier: {rng.randint(1, 3)}\n",
        )
    for node in nodes:
        folder = f"domains/{node.domain}/{node.name}"
        out.write(f"{folder}/product.odps.yaml", product(node, rng))
        out.write(f"{folder}/pipeline.yaml", pipeline(node, rng))
        names = {port: port for port in tables(node)} | {"raw": raw_port(node)}
        out.write(f"{folder}/{node.port}.sql", node.sql.format(**names))
        out.write(f"{folder}/{node.port}.odcs.yaml", contract(node, node.port, node.columns, physical="table", keys=node.keys, rng=rng))
        if not node.reads:
            physical = "topic" if node.kind == "stream" else "csv"
            out.write(f"{folder}/{raw_port(node)}.odcs.yaml", contract(node, raw_port(node), raw_columns(node), physical=physical))
        if node.kind == "files":
            out.write(f"{folder}/data/{node.noun}.csv", rows(node, rng))
    return out


def rows(node, rng):
    columns = raw_columns(node)
    lines = [",".join(column.name for column in columns)]
    for number in range(1, 21):
        values = []
        for column in columns:
            day = f"2026-08-{3 + number % 20:02d}"
            values.append(
                {
                    node.extra["row_id"]: f"R{number:05d}", node.key_column: f"K{rng.randint(1, 9):04d}", "business_date": day,
                    "updated_at": f"{day}T08:00:00Z", "region": rng.choice(["north", "south", "east", "west"]),
                    "status": rng.choice(STATES), "channel": rng.choice(CHANNELS),
                }.get(column.name)
                or (str(rng.randint(0, 50)) if column.kind == "integer" else f"{rng.randint(0, 9999) / 100:.2f}")
            )
        lines.append(",".join(values))
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------------------
# Writing: the same graph for the peers. One model for each product, the same query, the same columns with their types and
# descriptions, and the tests that say what the contract's rules say.
# ---------------------------------------------------------------------------------------------------------------------


def peer_query(node, table, raw):
    if node.kind == "feature":
        up = table(node.reads[0])
        lines = [f"  {node.key_column},\n  MAX(ts) AS as_of,"]
        spans = {"1h": "1 hour", "1d": "1 day", "7d": "7 days"}
        for label, agg, windows in node.extra["features"]:
            call, argument = agg.rstrip(")").split("(")
            for window in windows:
                recent = f"ts > CAST('{START}' AS TIMESTAMP) - INTERVAL '{spans[window]}'"
                lines.append(f"  {call.upper()}(CASE WHEN {recent} THEN {argument or '1'} END) AS {label}_{window},")
        body = "\n".join(lines).rstrip(",")
        return f"SELECT\n{body}\nFROM {up}\nGROUP BY {node.key_column}\n"
    names = {port: table(up) for port, up in tables(node).items()}
    return node.sql.format(**names, raw=raw)


def write_dbt(root, nodes):
    out = Writer(root)
    out.write(
        "dbt_project.yml",
        "name: large\nversion: '1.0'\nprofile: large\nmodel-paths: [models]\nmacro-paths: [macros]\n"
        "models:\n  large:\n    +materialized: table\nflags:\n  send_anonymous_usage_stats: false\n",
    )
    out.write("profiles.yml", "large:\n  target: dev\n  outputs:\n    dev: {type: duckdb, path: large.duckdb, threads: 2}\n")
    out.write(
        "macros/tests.sql",
        "{% test unique_together(model, columns) %}\nSELECT {{ columns | join(', ') }}\nFROM {{ model }}\nGROUP BY {{ columns | join(', ') }}\n"
        "HAVING COUNT(*) > 1\n{% endtest %}\n\n"
        "{% test not_empty(model) %}\nSELECT 1 WHERE NOT EXISTS (SELECT 1 FROM {{ model }})\n{% endtest %}\n",
    )
    sources = {}
    for node in nodes:
        name_ = f"{node.domain}__{node.port}"
        raw = f"{{{{ source('{node.domain}_raw', '{raw_port(node)}') }}}} AS {raw_port(node)}"
        table = lambda up: f"{{{{ ref('{up.domain}__{up.port}') }}}} AS {up.port}"  # noqa: E731
        out.write(f"models/{node.domain}/{name_}.sql", peer_query(node, table, raw))
        lines = [f"version: 2\nmodels:\n  - name: {name_}\n    description: {about(node)}\n"]
        lines.append("    data_tests:\n      - not_empty\n")
        if len(node.keys) > 1:
            lines.append(f"      - unique_together:\n          arguments: {{columns: [{', '.join(node.keys)}]}}\n")
        lines.append("    columns:\n")
        for column in node.columns:
            lines.append(f"      - name: {column.name}\n        data_type: {PEER_TYPES[column.kind]}\n        description: \"{column.about}\"\n")
            tests = ["not_null"] if column.name == node.keys[0] else []
            if node.keys == [column.name]:
                tests.append("unique")
            if column.values:
                tests.append(f"accepted_values: {{arguments: {{values: [{', '.join(repr(it) for it in column.values)}]}}}}")
            if tests:
                lines.append("        data_tests:\n" + "".join(f"          - {it}\n" for it in tests))
        out.write(f"models/{node.domain}/{name_}.yml", "".join(lines))
        if not node.reads:
            sources.setdefault(node.domain, []).append(node)
    for domain, members in sources.items():
        lines = [f"version: 2\nsources:\n  - name: {domain}_raw\n    tables:\n"]
        for node in members:
            lines.append(f"      - name: {raw_port(node)}\n        columns:\n")
            lines += [f"          - {{name: {it.name}, data_type: {PEER_TYPES[it.kind]}}}\n" for it in raw_columns(node)]
        out.write(f"models/{domain}/_sources.yml", "".join(lines))
    return out


def write_sqlmesh(root, nodes):
    out = Writer(root)
    out.write(
        "config.yaml",
        "gateways:\n  local:\n    connection: {type: duckdb, database: large.duckdb}\ndefault_gateway: local\n"
        f"model_defaults: {{dialect: duckdb, start: '{START}'}}\ndisable_anonymized_analytics: true\n",
    )
    external = []
    for node in nodes:
        raw = f"raw_{node.domain}.{raw_port(node)} AS {raw_port(node)}"
        table = lambda up: f"{up.domain}.{up.port} AS {up.port}"  # noqa: E731
        query = peer_query(node, table, raw).rstrip()
        columns = ",\n".join(f"    {column.name} {PEER_TYPES[column.kind]}" for column in node.columns)
        described = ",\n".join(f"    {column.name} = '{column.about}'" for column in node.columns)
        audits = [f"not_null(columns := ({node.keys[0]}))"]
        audits.append(f"unique_combination_of_columns(columns := ({', '.join(node.keys)}))")
        for column in node.columns:
            if column.values:
                values = ", ".join(f"'{it}'" for it in column.values)
                audits.append(f"accepted_values(column := {column.name}, is_in := ({values}))")
        listed = ",\n".join(f"    {it}" for it in audits)
        out.write(
            f"models/{node.domain}/{node.port}.sql",
            f"MODEL (\n  name {node.domain}.{node.port},\n  kind FULL,\n  cron '@daily',\n  description '{about(node)}',\n"
            f"  columns (\n{columns}\n  ),\n  column_descriptions (\n{described}\n  ),\n  audits (\n{listed}\n  )\n);\n\n{query}\n",
        )
        if not node.reads:
            lines = [f"- name: raw_{node.domain}.{raw_port(node)}\n  columns:\n"]
            lines += [f"    {it.name}: {PEER_TYPES[it.kind]}\n" for it in raw_columns(node)]
            external.append("".join(lines))
    out.write("external_models.yaml", "".join(external))
    return out


# ---------------------------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write; folders of an earlier run in it are replaced")
    parser.add_argument("--products", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--peers", action="store_true", help="also write the graph for dbt and SQLMesh")
    args = parser.parse_args()
    if args.products < 100:
        parser.error("--products must be at least 100, so that every domain has a source")
    for name_ in ("mesh", "dbt", "sqlmesh"):
        # Only what this script made is removed.
        if (args.folder / "graph.json").is_file() and (args.folder / name_).is_dir():
            shutil.rmtree(args.folder / name_)
    rng = random.Random(args.seed)
    nodes = make_graph(args.products, rng)
    for node in nodes:
        # One in ten tables is Iceberg; a stream's archive is left to the environment's format.
        node.extra["iceberg"] = node.kind in ("files", "batch") and rng.random() < 0.1
    out = write_mesh(args.folder / "mesh", nodes, rng)
    if args.peers:
        write_dbt(args.folder / "dbt", nodes)
        write_sqlmesh(args.folder / "sqlmesh", nodes)
    edges = sum(len(node.reads) for node in nodes)
    kinds = {kind: sum(node.kind == kind for node in nodes) for kind in ("files", "stream", "feature", "batch")}
    summary = {
        "products": len(nodes), "seed": args.seed, "domains": len({node.domain for node in nodes}), "edges": edges,
        "edges_across_domains": sum(up.domain != node.domain for node in nodes for up in node.reads),
        "kinds": kinds, "iceberg": sum(node.extra["iceberg"] for node in nodes),
        "columns": sum(len(node.columns) for node in nodes), "files": out.files, "bytes": out.bytes,
        "reads": {node.id: [up.id for up in node.reads] for node in nodes},
    }
    (args.folder / "graph.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(", ".join(f"{key} {value}" for key, value in summary.items() if key != "reads"))


if __name__ == "__main__":
    main()
