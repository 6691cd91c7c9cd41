package hydromesh.deploy.partition_bound_test

import data.hydromesh.deploy.partition_bound
import data.hydromesh.fixture_test as fixture

planned(count) := fixture.changed({"plan": {"partitions": count}})

test_allows_up_to_the_bound if {
	every n in [0, 1, 90, data.hydromesh.limits.partitions_per_plan] {
		count(partition_bound.deny) == 0 with input as planned(n)
	}
}

test_denies_beyond_the_bound if {
	count(partition_bound.deny) == 1 with input as planned(data.hydromesh.limits.partitions_per_plan + 1)
}

test_denies_when_the_limit_is_missing if {
	count(partition_bound.deny) == 1 with input as planned(1) with data.hydromesh.limits as {}
}

test_a_plan_without_partitions_needs_no_bound if {
	count(partition_bound.deny) == 0 with input as planned(0) with data.hydromesh.limits as {}
}
