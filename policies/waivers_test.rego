package hydromesh.deploy.waivers_test

import data.hydromesh.deploy.waivers
import data.hydromesh.fixture_test as fixture

until(time) := fixture.changed({"waivers": [{
	"id": "w1",
	"rule": "pii-exposed",
	"scope": "customer/*",
	"reason": "migration",
	"approver": "ada@retail.example",
	"expires": time,
}]})

test_allows_ninety_days if {
	count(waivers.warn) == 0 with input as until("2026-11-08T12:00:00Z")
	count(waivers.warn) == 0 with input as fixture.good
}

test_warns_of_longer_waivers if {
	found := waivers.warn with input as until("2026-11-08T12:00:01Z")
	{finding.path | some finding in found} == {"w1"}
}
