# METADATA
# title: Every table has a quality rule that can stop a publication
# description: Rules of severity error are audited before rows become visible; without one, wrong rows are published.
# custom:
#   severity: medium
#   remediation: Add a quality rule of severity error to the contract, for example that the key is never null.
package hydromesh.deploy.quality

import data.hydromesh.lib

exempt if {
	some kind in input.product.kinds
	kind in data.hydromesh.limits.quality_exempt_kinds
}

# A missing limit is never met.
enough(contract) if contract.quality.errorRules >= data.hydromesh.limits.min_error_rules

deny contains {
	"rule": "quality-error-rule-present",
	"msg": sprintf("the contract of %s has no quality rule of severity error", [contract.port]),
	"path": contract.port,
} if {
	lib.publishes
	not exempt
	some contract in input.contracts
	not enough(contract)
}
