package hydromesh.deploy.contract_version_test

import data.hydromesh.deploy.contract_version
import data.hydromesh.fixture_test as fixture

versions(old, new) := fixture.contracted({"oldVersion": old, "version": new})

test_allows_equal_and_higher_versions if {
	every new in ["1.2.0", "1.2.1", "1.10.0", "2.0.0"] {
		count(contract_version.deny) == 0 with input as versions("1.2.0", new)
	}
}

test_denies_lower_versions if {
	every new in ["1.1.9", "0.9.0", "1.2.0-rc.1"] {
		count(contract_version.deny) == 1 with input as versions("1.2.0", new)
	}
}

test_denies_what_is_not_a_version if {
	found := contract_version.deny with input as versions("1.2.0", "v2")
	{finding.msg | some finding in found} == {"version v2 of the contract of customer/c360.profile is not a semantic version"}
}

test_allows_to_leave_a_bad_old_version_behind if {
	count(contract_version.deny) == 0 with input as versions("v1", "2.0.0")
	count(contract_version.deny) == 0 with input as versions(null, "1.0.0")
}

test_says_nothing_on_retirement if {
	retired := {"request": {"action": "retire"}}
	count(contract_version.deny) == 0 with input as object.union(versions("1.2.0", "1.1.0"), retired)
	count(contract_version.deny) == 0 with input as object.union(versions("1.2.0", "v2"), retired)
}
