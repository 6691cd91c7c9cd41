# METADATA
# title: Runbooks are kept in the handbook
# description: At night there is one place to look, and it is backed up.
# custom:
#   severity: medium
#   remediation: Move the runbook to https://runbooks.larchandpine.example and link it in product.odps.yaml.
package mesh.runbook_host

handbook := "https://runbooks.larchandpine.example/"

deny contains {
	"rule": "runbook-host",
	"msg": sprintf("the runbook of %s is not in the handbook: %s", [input.product.id, input.product.runbook]),
	"path": "product.runbook",
} if {
	input.request.action in {"deploy", "promote"}
	is_string(input.product.runbook)
	not startswith(input.product.runbook, handbook)
}
