# METADATA
# title: Personal text stays out of search indexes
# description: |
#   An embedding can be turned back into much of its text and a search answers anybody who may ask it, so text with
#   a forbidden label is not embedded, whatever the classification of the index.
# custom:
#   severity: critical
#   remediation: Mask or leave out the labelled column before embedding, or embed another column.
#   enforce: running
package hydromesh.deploy.search

import data.hydromesh.lib

# Only labels that are known and not on the list may be embedded; a missing list forbids all of them.
allowed(label) if {
	label in object.keys(lib.ranks)
	not label in data.hydromesh.limits.search_forbidden_labels
	count(data.hydromesh.limits.search_forbidden_labels) >= 0
}

deny contains {
	"rule": "pii-into-search",
	"msg": sprintf("the search index %s would hold text of %s (%s)", [edge.to, edge.from, label]),
	"path": edge.to,
} if {
	lib.writes
	"embedding" in input.product.kinds
	some edge in lib.exposing_edges
	label := input.lineage.labels[edge.from]
	not allowed(label)
}
