# METADATA
# title: Personal and confidential values keep their classification
# description: |
#   A column that copies the values of a more sensitive column must be classified at least as high
#   (public < internal < confidential < pii), unless the values are masked on the way. A column without
#   a classification counts as public.
# custom:
#   severity: critical
#   remediation: Classify the column in the contract as high as its source, mask the value in the query, or leave it out.
#   enforce: running
package hydromesh.deploy.pii

import data.hydromesh.lib

deny contains {
	"rule": "pii-exposed",
	"msg": sprintf("%s carries the values of %s (%s) with a lower classification", [edge.to, edge.from, label]),
	"path": edge.to,
} if {
	lib.writes
	some edge in lib.exposing_edges
	label := input.lineage.labels[edge.from]
	lib.label_rank(label) >= lib.ranks.confidential
	object.get(lib.own_columns, edge.to, 0) < lib.label_rank(label)
}
