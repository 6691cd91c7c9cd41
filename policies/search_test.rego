package hydromesh.deploy.search_test

import data.hydromesh.deploy.search
import data.hydromesh.fixture_test as fixture

embedded(label) := fixture.changed({
	"product": {"kinds": ["embedding"]},
	"lineage": {"labels": {"customer/customers.customers#email": label}},
})

test_denies_personal_text if {
	found := search.deny with input as embedded("pii")
	{finding.path | some finding in found} == {"customer/c360.profile#email"}
}

test_denies_unknown_labels if count(search.deny) == 1 with input as embedded("secret")

test_allows_other_labels if {
	every label in ["public", "internal", "confidential"] {
		count(search.deny) == 0 with input as embedded(label)
	}
}

test_allows_other_kinds if count(search.deny) == 0 with input as fixture.good

test_lets_an_index_be_dropped if {
	count(search.deny) == 0 with input as object.union(embedded("pii"), {"request": {"action": "drop"}})
}

test_denies_when_the_list_is_missing if {
	count(search.deny) == 1 with input as embedded("internal") with data.hydromesh.limits as {}
}
