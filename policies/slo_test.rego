package hydromesh.deploy.slo_test

import data.hydromesh.deploy.slo
import data.hydromesh.fixture_test as fixture

test_allows_a_service_level if {
	count(slo.deny) == 0 with input as fixture.good
	count(slo.warn) == 0 with input as fixture.changed({"product": {"tier": 4}})
}

test_denies_none_in_important_tiers if {
	found := slo.deny with input as fixture.contracted({"sla": []})
	{finding.path | some finding in found} == {"customer/c360.profile"}
	count(slo.warn) == 0 with input as fixture.contracted({"sla": []})
}

test_warns_of_none_in_other_tiers if {
	low := object.union(fixture.contracted({"sla": []}), {"product": {"tier": 4}})
	count(slo.deny) == 0 with input as low
	count(slo.warn) == 1 with input as low
}

test_says_nothing_when_nothing_is_published if {
	retired := object.union(fixture.contracted({"sla": []}), {"request": {"action": "retire"}})
	count(slo.deny) == 0 with input as retired
	count(slo.warn) == 0 with input as object.union(retired, {"product": {"tier": 4}})
}

test_denies_when_the_limit_is_missing if {
	low := object.union(fixture.contracted({"sla": []}), {"product": {"tier": 4}})
	count(slo.deny) == 1 with input as low with data.hydromesh.limits as {}
}
