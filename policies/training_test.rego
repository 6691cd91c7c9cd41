package hydromesh.deploy.training_test

import data.hydromesh.deploy.training
import data.hydromesh.fixture_test as fixture

model(features, as_of) := fixture.changed({
	"product": {
		"kinds": ["training"],
		"inputPorts": [
			{"name": "features", "from": "customer/activity.features", "external": false},
			{"name": "bureau", "from": "bureau.scores", "external": true},
		],
	},
	"model": {"features": features, "training": {"algorithm": "logistic_regression", "as_of": as_of}},
})

governed := ["customer/activity.features", "customer/activity.features#spend_7d"]

test_allows_products_without_model if {
	count(training.deny) == 0 with input as fixture.good
	count(training.warn) == 0 with input as fixture.good
}

test_allows_features_of_declared_ports if {
	count(training.deny) == 0 with input as model(governed, "knowledge")
	count(training.warn) == 0 with input as model(governed, "knowledge")
}

test_denies_features_from_elsewhere if {
	found := training.deny with input as model(["customer/activity.features", "commerce/orders.orders#amount"], "knowledge")
	{finding.path | some finding in found} == {"commerce/orders.orders#amount"}
}

test_denies_external_features if {
	found := training.deny with input as model(["bureau.scores"], "knowledge")
	{finding.path | some finding in found} == {"bureau.scores"}
}

test_denies_a_model_without_features if {
	found := training.deny with input as model([], "knowledge")
	{finding.path | some finding in found} == {"model.features"}
}

test_denies_a_training_set_of_no_time if {
	found := training.deny with input as model(governed, null)
	{finding.path | some finding in found} == {"model.training.as_of"}
}

test_warns_of_event_time_alone if {
	count(training.deny) == 0 with input as model(governed, "event")
	count(training.warn) == 1 with input as model(governed, "event")
}

test_says_nothing_on_retirement if {
	every features in [["bureau.scores"], []] {
		retired := object.union(model(features, null), {"request": {"action": "retire"}})
		count(training.deny) == 0 with input as retired
	}
	early := object.union(model(governed, "event"), {"request": {"action": "retire"}})
	count(training.warn) == 0 with input as early
}
