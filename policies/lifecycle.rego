# METADATA
# title: Retired products stay retired and read products stay alive
# description: A retired product is not written again, and a product with readers is not taken away.
# custom:
#   severity: high
#   remediation: Set the status back to active in a change of its own, or move the readers first.
package hydromesh.deploy.lifecycle

import data.hydromesh.lib

# METADATA
# title: A retired product is not written
# custom:
#   rule: retired-status
#   severity: high
#   remediation: Set the status of the product or contract back to active in product.odps.yaml or the contract.
deny contains {
	"rule": "retired-status",
	"msg": sprintf("product %s is retired and would be written by %s", [input.product.id, input.request.action]),
	"path": "product.status",
} if {
	lib.writes
	input.product.status == "retired"
}

deny contains {
	"rule": "retired-status",
	"msg": sprintf("the contract of %s is retired and its port would be written by %s", [contract.port, input.request.action]),
	"path": contract.port,
} if {
	lib.writes
	some contract in input.contracts
	contract.status == "retired"
}

# METADATA
# title: A product with readers is not taken away
# custom:
#   rule: readers-remain
#   severity: critical
#   remediation: Move the named readers to another product before this one is retired or dropped.
deny contains {
	"rule": "readers-remain",
	"msg": sprintf("%s still reads product %s", [reader, input.product.id]),
	"path": reader,
} if {
	lib.removes
	some reader in input.lineage.downstream
}

# METADATA
# title: A deprecated product tells its readers
# custom:
#   rule: deprecated-status
#   severity: low
#   remediation: Tell the readers when the product ends and where they should go.
warn contains {
	"rule": "deprecated-status",
	"msg": sprintf("product %s is deprecated and still has readers", [input.product.id]),
	"path": "product.status",
} if {
	lib.publishes
	input.product.status == "deprecated"
	count(input.lineage.downstream) > 0
}
