package hydromesh.lib_test

import data.hydromesh.fixture_test as fixture
import data.hydromesh.lib

test_actions_that_publish if {
	published := {action |
		some action in ["deploy", "backfill", "restate", "retire", "drop", "promote"]
		lib.publishes with input as fixture.acting(action, {})
	}
	published == {"deploy", "promote"}
}

test_actions_that_write if {
	written := {action |
		some action in ["deploy", "backfill", "restate", "retire", "drop", "promote"]
		lib.writes with input as fixture.acting(action, {})
	}
	written == {"deploy", "promote", "backfill", "restate"}
}

test_actions_that_remove if {
	removed := {action |
		some action in ["deploy", "backfill", "restate", "retire", "drop", "promote"]
		lib.removes with input as fixture.acting(action, {})
	}
	removed == {"retire", "drop"}
}

test_ranks_are_ordered if {
	lib.label_rank("public") < lib.label_rank("internal")
	lib.label_rank("internal") < lib.label_rank("confidential")
	lib.label_rank("confidential") < lib.label_rank("pii")
	lib.label_rank("top-secret") == lib.label_rank("pii")
}

test_a_column_without_a_known_classification_is_public if {
	columns := [
		{"name": "a", "classification": "pii"},
		{"name": "b", "classification": "secret"},
		{"name": "c", "classification": null},
		{"name": "d"},
	]
	ranks := lib.own_columns with input as fixture.contracted({"columns": columns})
	ranks == {
		"customer/c360.profile#a": 3,
		"customer/c360.profile#b": 0,
		"customer/c360.profile#c": 0,
		"customer/c360.profile#d": 0,
	}
}

test_only_unmasked_direct_edges_into_own_columns_expose if {
	edges := [
		fixture.edge,
		object.union(fixture.edge, {"masking": true}),
		object.union(fixture.edge, {"type": "INDIRECT"}),
		object.union(fixture.edge, {"to": "customer/c360-other.profile#email"}),
	]
	found := lib.exposing_edges with input as fixture.changed({"lineage": {"columnEdges": edges}})
	found == {fixture.edge}
}

test_major_of_a_version if {
	lib.major("12.3.4") == 12
	not lib.major("12")
}
