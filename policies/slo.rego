# METADATA
# title: Every promise to readers includes a service level
# description: Without a service level nobody can tell whether the product is late or wrong.
# custom:
#   severity: medium
#   remediation: Add slaProperties (latency, frequency, retention, ...) to the contract of the port.
package hydromesh.deploy.slo

import data.hydromesh.lib

# A missing limit means every tier needs a service level.
optional if input.product.tier > data.hydromesh.limits.slo_max_tier

deny contains {
	"rule": "slo-present",
	"msg": sprintf("the contract of %s promises no service level", [contract.port]),
	"path": contract.port,
} if {
	lib.publishes
	not optional
	some contract in input.contracts
	count(contract.sla) == 0
}

warn contains {
	"rule": "slo-present",
	"msg": sprintf("the contract of %s promises no service level", [contract.port]),
	"path": contract.port,
} if {
	lib.publishes
	optional
	some contract in input.contracts
	count(contract.sla) == 0
}
