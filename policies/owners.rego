# METADATA
# title: Every product has an owner who can be reached
# description: A product nobody owns cannot be repaired, changed or retired safely.
# custom:
#   severity: high
#   remediation: Add at least one e-mail address of an owner to product.odps.yaml or domain.yaml.
package hydromesh.deploy.owners

import data.hydromesh.lib

deny contains {
	"rule": "owners-present",
	"msg": sprintf("product %s has no owner", [input.product.id]),
	"path": "product.owners",
} if {
	lib.publishes
	count(input.product.owners) == 0
}

deny contains {
	"rule": "owners-present",
	"msg": sprintf("owner %s of product %s is not an e-mail address", [owner, input.product.id]),
	"path": "product.owners",
} if {
	lib.publishes
	some owner in input.product.owners
	not regex.match(`^[^@ ]+@[^@ ]+\.[^@ ]+$`, owner)
}
