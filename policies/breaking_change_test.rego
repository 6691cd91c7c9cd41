package hydromesh.deploy.breaking_change_test

import data.hydromesh.deploy.breaking_change
import data.hydromesh.fixture_test as fixture

removal := {
	"port": "customer/c360.profile",
	"column": "email",
	"type": "REMOVE",
	"field": "column",
	"old": "string",
	"new": null,
	"breaks": {"backward": false, "forward": true},
}

versions(old, new, change) := object.union(
	fixture.contracted({"oldVersion": old, "version": new}),
	{"changes": [change]},
)

test_allows_no_change if count(breaking_change.deny) == 0 with input as fixture.good

test_allows_a_raised_major if count(breaking_change.deny) == 0 with input as versions("1.2.0", "2.0.0", removal)

test_denies_a_raised_minor if {
	found := breaking_change.deny with input as versions("1.2.0", "1.3.0", removal)
	{finding.path | some finding in found} == {"customer/c360.profile#email"}
}

test_denies_versions_that_cannot_be_compared if {
	count(breaking_change.deny) == 1 with input as versions("1.2.0", "2", removal)
	count(breaking_change.deny) == 1 with input as versions("one", "2.0.0", removal)
}

test_allows_changes_that_break_nobody if {
	addition := object.union(removal, {"type": "ADD", "breaks": {"forward": false}})
	count(breaking_change.deny) == 0 with input as versions("1.2.0", "1.3.0", addition)
}

test_allows_a_first_version if count(breaking_change.deny) == 0 with input as versions(null, "1.0.0", removal)

test_names_the_port_when_no_column_is_meant if {
	found := breaking_change.deny with input as versions("1.2.0", "1.3.0", object.union(removal, {"column": null}))
	{finding.path | some finding in found} == {"customer/c360.profile"}
}

test_other_ports_raise_for_themselves if {
	other := object.union(removal, {"port": "customer/c360.other"})
	found := breaking_change.deny with input as versions("1.2.0", "1.3.0", other)
	{finding.msg | some finding in found} == {concat("", [
		"remove of customer/c360.other#email breaks readers, and the port has no contract that says so",
	])}
}

test_allows_a_port_without_contract_to_change_harmlessly if {
	other := object.union(removal, {"port": "customer/c360.other", "breaks": {"forward": false}})
	count(breaking_change.deny) == 0 with input as versions("1.2.0", "1.3.0", other)
}

test_says_nothing_on_retirement if {
	retired := object.union(versions("1.2.0", "1.3.0", removal), {"request": {"action": "retire"}})
	count(breaking_change.deny) == 0 with input as retired
	count(breaking_change.deny) == 0 with input as object.union(retired, {"contracts": []})
}
