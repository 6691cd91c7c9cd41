package hydromesh.deploy.owners_test

import data.hydromesh.deploy.owners
import data.hydromesh.fixture_test as fixture

test_allows_an_owner if count(owners.deny) == 0 with input as fixture.good

test_denies_no_owner if {
	found := owners.deny with input as fixture.changed({"product": {"owners": []}})
	{finding.msg | some finding in found} == {"product customer/c360 has no owner"}
}

test_denies_an_owner_without_address if {
	found := owners.deny with input as fixture.changed({"product": {"owners": ["ada@retail.example", "the team"]}})
	{finding.msg | some finding in found} == {"owner the team of product customer/c360 is not an e-mail address"}
}

test_lets_a_product_without_owner_be_retired if {
	count(owners.deny) == 0 with input as fixture.acting("retire", {"product": {"owners": []}})
	count(owners.deny) == 0 with input as fixture.acting("retire", {"product": {"owners": ["the team"]}})
}
