package hydromesh.deploy.quality_test

import data.hydromesh.deploy.quality
import data.hydromesh.fixture_test as fixture

unchecked := fixture.contracted({"quality": {"rules": 3, "errorRules": 0}})

test_allows_an_error_rule if count(quality.deny) == 0 with input as fixture.contracted({"quality": {"errorRules": 1}})

test_denies_warnings_alone if {
	found := quality.deny with input as unchecked
	{finding.path | some finding in found} == {"customer/c360.profile"}
}

test_exempts_models_and_indexes if {
	count(quality.deny) == 0 with input as object.union(unchecked, {"product": {"kinds": ["training"]}})
	count(quality.deny) == 0 with input as object.union(unchecked, {"product": {"kinds": ["embedding"]}})
}

test_exempts_no_other_kind if {
	every kind in ["batch", "stream", "feature", "source"] {
		count(quality.deny) == 1 with input as object.union(unchecked, {"product": {"kinds": [kind]}})
	}
}

test_says_nothing_on_retirement if {
	count(quality.deny) == 0 with input as object.union(unchecked, {"request": {"action": "retire"}})
}

test_denies_when_the_limit_is_missing if {
	count(quality.deny) == 1 with input as fixture.good with data.hydromesh.limits as {}
}
