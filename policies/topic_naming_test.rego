package hydromesh.deploy.topic_naming_test

import data.hydromesh.deploy.topic_naming
import data.hydromesh.fixture_test as fixture

named(name, format) := fixture.changed({"product": {"outputPorts": [{"name": name, "format": format}]}})

test_allows_plain_names if {
	every name in ["clickstream", "raw_clicks", "raw-clicks-2"] {
		count(topic_naming.deny) == 0 with input as named(name, "topic")
	}
}

test_denies_other_names if {
	every name in ["Clicks", "2clicks", "raw__clicks", "raw.clicks", "clicks-", "clicks\n", ""] {
		count(topic_naming.deny) == 1 with input as named(name, "kafka")
	}
}

test_denies_long_names if {
	long := concat("", [letter | some _ in numbers.range(1, 81); letter := "a"])
	found := topic_naming.deny with input as named(long, "topic")
	{finding.path | some finding in found} == {sprintf("customer/c360.%s", [long])}
}

test_allows_tables_any_name if count(topic_naming.deny) == 0 with input as named("Clicks", "delta")

test_says_nothing_on_retirement if {
	count(topic_naming.deny) == 0 with input as object.union(named("Clicks", "topic"), {"request": {"action": "retire"}})
}
