# METADATA
# title: A change that breaks readers raises the major version
# description: Readers that were written for the old contract must be able to tell from its version that it no longer holds.
# custom:
#   severity: high
#   remediation: Raise the major version of the contract, or keep the old column beside the new one.
package hydromesh.deploy.breaking_change

import data.hydromesh.lib

deny contains {
	"rule": "breaking-change-needs-major",
	"msg": sprintf("%s of %s breaks readers of version %s, and version %s does not raise the major number", [
		lower(change.type), subject(change), contract.oldVersion, contract.version,
	]),
	"path": subject(change),
} if {
	lib.publishes
	some change in input.changes
	change.breaks.forward
	some contract in input.contracts
	contract.port == change.port
	is_string(contract.oldVersion)
	not raised(contract)
}

deny contains {
	"rule": "breaking-change-needs-major",
	"msg": sprintf("%s of %s breaks readers, and the port has no contract that says so", [lower(change.type), subject(change)]),
	"path": subject(change),
} if {
	lib.publishes
	some change in input.changes
	change.breaks.forward
	not change.port in {contract.port | some contract in input.contracts}
}

# Versions that cannot be compared are never a raise.
raised(contract) if lib.major(contract.version) > lib.major(contract.oldVersion)

subject(change) := sprintf("%s#%s", [change.port, change.column]) if is_string(change.column)

subject(change) := change.port if not is_string(object.get(change, "column", null))
