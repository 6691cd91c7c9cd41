# METADATA
# title: The version of a contract is never lowered
# description: A lower version would tell readers that an older promise holds again.
# custom:
#   severity: high
#   remediation: Give the contract a semantic version that is not below the deployed one; roll back by raising it.
package hydromesh.deploy.contract_version

import data.hydromesh.lib

deny contains {
	"rule": "contract-version-not-lowered",
	"msg": sprintf("the contract of %s goes back from version %s to %s", [contract.port, contract.oldVersion, contract.version]),
	"path": contract.port,
} if {
	lib.publishes
	some contract in input.contracts
	semver.is_valid(contract.version)
	is_string(contract.oldVersion)
	semver.is_valid(contract.oldVersion)
	semver.compare(contract.version, contract.oldVersion) < 0
}

deny contains {
	"rule": "contract-version-not-lowered",
	"msg": sprintf("version %s of the contract of %s is not a semantic version", [contract.version, contract.port]),
	"path": contract.port,
} if {
	lib.publishes
	some contract in input.contracts
	not semver.is_valid(contract.version)
}
