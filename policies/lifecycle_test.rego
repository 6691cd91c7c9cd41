package hydromesh.deploy.lifecycle_test

import data.hydromesh.deploy.lifecycle
import data.hydromesh.fixture_test as fixture

rules(found) := {finding.rule | some finding in found}

test_allows_active_products if {
	count(lifecycle.deny) == 0 with input as fixture.good
	count(lifecycle.warn) == 0 with input as fixture.changed({"lineage": {"downstream": ["risk/churn"]}})
}

test_denies_writing_a_retired_product if {
	found := lifecycle.deny with input as fixture.acting("backfill", {"product": {"status": "retired"}})
	rules(found) == {"retired-status"}
}

test_denies_writing_a_port_with_a_retired_contract if {
	found := lifecycle.deny with input as fixture.contracted({"status": "retired"})
	{finding.path | some finding in found} == {"customer/c360.profile"}
}

test_allows_a_retired_product_to_be_dropped if {
	count(lifecycle.deny) == 0 with input as fixture.acting("drop", {"product": {"status": "retired"}})
	retired := object.union(fixture.contracted({"status": "retired"}), {"request": {"action": "drop"}})
	count(lifecycle.deny) == 0 with input as retired
}

test_denies_taking_data_from_readers if {
	found := lifecycle.deny with input as fixture.acting("retire", {"lineage": {"downstream": ["risk/churn"]}})
	found == {{"rule": "readers-remain", "msg": "risk/churn still reads product customer/c360", "path": "risk/churn"}}
}

test_allows_readers_of_what_stays if {
	count(lifecycle.deny) == 0 with input as fixture.changed({"lineage": {"downstream": ["risk/churn"]}})
}

test_warns_of_readers_of_a_deprecated_product if {
	deprecated := fixture.changed({"product": {"status": "deprecated"}, "lineage": {"downstream": ["risk/churn"]}})
	found := lifecycle.warn with input as deprecated
	rules(found) == {"deprecated-status"}
	count(lifecycle.deny) == 0 with input as deprecated
	count(lifecycle.warn) == 0 with input as object.union(deprecated, {"lineage": {"downstream": []}})
	count(lifecycle.warn) == 0 with input as object.union(deprecated, {"request": {"action": "retire"}})
}
