package hydromesh.deploy.oncall_test

import data.hydromesh.deploy.oncall
import data.hydromesh.fixture_test as fixture

paths(found) := {finding.path | some finding in found}

test_allows_oncall_and_runbook if count(oncall.deny) == 0 with input as fixture.good

test_denies_nobody_on_call if {
	missing := oncall.deny with input as fixture.changed({"product": {"oncall": null}})
	empty := oncall.deny with input as fixture.changed({"product": {"oncall": ""}})
	paths(missing) == {"product.oncall"}
	paths(empty) == {"product.oncall"}
}

test_denies_no_runbook if {
	missing := oncall.deny with input as fixture.changed({"product": {"runbook": null, "tier": 2}})
	insecure := oncall.deny with input as fixture.changed({"product": {"runbook": "http://x.example", "tier": 2}})
	paths(missing) == {"product.runbook"}
	paths(insecure) == {"product.runbook"}
}

test_allows_low_tiers_to_sleep if {
	count(oncall.deny) == 0 with input as fixture.changed({"product": {"oncall": null, "runbook": null, "tier": 3}})
}

test_lets_a_product_without_oncall_be_retired if {
	count(oncall.deny) == 0 with input as fixture.acting("retire", {"product": {"oncall": null, "runbook": null}})
}

test_denies_when_the_limit_is_missing if {
	found := oncall.deny with input as fixture.changed({"product": {"oncall": null, "tier": 3}})
		with data.hydromesh.limits as {}
	paths(found) == {"product.oncall"}
}
