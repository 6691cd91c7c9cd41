# METADATA
# title: Words that several central rules share
# description: A library declares neither deny nor warn, so the gate never asks it for a verdict.
package hydromesh.lib

# Actions that make a new definition live.
publishes if input.request.action in {"deploy", "promote"}

# Actions after which readers can see rows they could not see before.
writes if input.request.action in {"deploy", "promote", "backfill", "restate"}

# Actions that take data away.
removes if input.request.action in {"retire", "drop"}

ranks := {"public": 0, "internal": 1, "confidential": 2, "pii": 3}

# A label nobody knows ranks highest: a typing error never lowers protection.
label_rank(label) := object.get(ranks, label, 3)

# The address of every column of this product's contracts with what the contract says about it.
# A column without a classification, or with an unknown one, counts as public.
own_columns[address] := rank if {
	some contract in input.contracts
	some column in contract.columns
	address := sprintf("%s#%s", [contract.port, column.name])
	rank := object.get(ranks, classification(column), 0)
}

classification(column) := column.classification if is_string(column.classification)

classification(column) := "" if not is_string(object.get(column, "classification", null))

# An address belongs to this product when it starts with the product's own id and a dot.
own(address) if startswith(address, sprintf("%s.", [input.product.id]))

# Columns whose values reach one of this product's columns unmasked.
exposing_edges contains edge if {
	some edge in input.lineage.columnEdges
	edge.type == "DIRECT"
	not edge.masking
	own(edge.to)
}

major(version) := to_number(split(version, ".")[0]) if semver.is_valid(version)
