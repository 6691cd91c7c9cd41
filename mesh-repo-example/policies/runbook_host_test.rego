package mesh.runbook_host_test

import data.mesh.runbook_host

deploy(runbook) := {
	"request": {"action": "deploy"},
	"product": {"id": "commerce/orders", "runbook": runbook},
}

test_the_handbook_is_fine if {
	count(runbook_host.deny) == 0 with input as deploy("https://runbooks.larchandpine.example/commerce/orders")
}

test_another_host_is_denied if {
	some finding in runbook_host.deny with input as deploy("https://wiki.elsewhere.example/orders")
	finding.rule == "runbook-host"
}

test_a_host_that_only_begins_alike_is_denied if {
	count(runbook_host.deny) == 1 with input as deploy("https://runbooks.larchandpine.example.evil.example/orders")
}

# Whether a product needs a runbook at all is the business of the central rules.
test_a_missing_runbook_is_no_business_of_this_rule if {
	count(runbook_host.deny) == 0 with input as deploy(null)
}
