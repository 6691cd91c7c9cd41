package hydromesh.deploy.pii_test

import data.hydromesh.deploy.pii
import data.hydromesh.fixture_test as fixture

classified(label) := fixture.contracted({"columns": [{"name": "email", "classification": label}]})

labelled(label, own) := object.union(
	classified(own),
	{"lineage": {"labels": {"customer/customers.customers#email": label}}},
)

test_allows_the_same_classification if count(pii.deny) == 0 with input as fixture.good

test_denies_every_lower_classification if {
	lowered := {[label, own] |
		some label in ["public", "internal", "confidential", "pii"]
		some own in ["public", "internal", "confidential", "pii"]
		count(pii.deny) == 1 with input as labelled(label, own)
	}
	lowered == {
		["confidential", "public"], ["confidential", "internal"],
		["pii", "public"], ["pii", "internal"], ["pii", "confidential"],
	}
}

test_names_the_column if {
	found := pii.deny with input as classified("internal")
	found == {{
		"rule": "pii-exposed",
		"msg": concat("", [
			"customer/c360.profile#email carries the values of customer/customers.customers#email (pii) ",
			"with a lower classification",
		]),
		"path": "customer/c360.profile#email",
	}}
}

test_denies_a_column_without_classification if {
	count(pii.deny) == 1 with input as classified(null)
	count(pii.deny) == 1 with input as fixture.contracted({"columns": []})
}

test_denies_an_unknown_label if count(pii.deny) == 1 with input as labelled("secret", "confidential")

test_allows_masked_and_indirect_edges if {
	masked := object.union(classified("public"), {"lineage": {"columnEdges": [object.union(fixture.edge, {"masking": true})]}})
	count(pii.deny) == 0 with input as masked
	filtered := object.union(classified("public"), {"lineage": {"columnEdges": [object.union(fixture.edge, {"type": "INDIRECT"})]}})
	count(pii.deny) == 0 with input as filtered
}

test_denies_backfills_and_not_retirement if {
	count(pii.deny) == 1 with input as object.union(classified("public"), {"request": {"action": "backfill"}})
	count(pii.deny) == 0 with input as object.union(classified("public"), {"request": {"action": "retire"}})
}
