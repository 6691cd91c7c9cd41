# METADATA
# title: Important products have somebody on call and a runbook
# description: Products of the highest tiers wake a person up, who needs to be named and needs to know what to do.
# custom:
#   severity: high
#   remediation: Name the on-call rota in domain.yaml and link a runbook (https) in product.odps.yaml, or lower the tier.
package hydromesh.deploy.oncall

import data.hydromesh.lib

# A missing limit means every tier is important.
unimportant if input.product.tier > data.hydromesh.limits.oncall_max_tier

oncall_named if {
	is_string(input.product.oncall)
	input.product.oncall != ""
}

# The type comes first: a function that is given null is an error, and an error denies with a worse message.
has_runbook if {
	is_string(input.product.runbook)
	startswith(input.product.runbook, "https://")
}

deny contains {
	"rule": "oncall-and-runbook",
	"msg": sprintf("product %s is of tier %d and has nobody on call", [input.product.id, input.product.tier]),
	"path": "product.oncall",
} if {
	lib.publishes
	not unimportant
	not oncall_named
}

deny contains {
	"rule": "oncall-and-runbook",
	"msg": sprintf("product %s is of tier %d and has no runbook with an https address", [input.product.id, input.product.tier]),
	"path": "product.runbook",
} if {
	lib.publishes
	not unimportant
	not has_runbook
}
