package domain.risk.known_then_test

import data.domain.risk.known_then

deploy(domain, as_of) := {
	"request": {"action": "deploy"},
	"product": {"id": sprintf("%s/churn-model", [domain]), "domain": domain},
	"model": {"features": ["customer/activity.features"], "training": {"algorithm": "logistic_regression", "as_of": as_of}},
}

test_knowledge_time_is_fine if {
	count(known_then.deny) == 0 with input as deploy("risk", "knowledge")
}

test_event_time_alone_is_denied if {
	some finding in known_then.deny with input as deploy("risk", "event")
	finding.rule == "known-then"
}

test_an_unstated_time_is_denied if {
	count(known_then.deny) == 1 with input as deploy("risk", null)
}

test_other_domains_decide_for_themselves if {
	count(known_then.deny) == 0 with input as deploy("commerce", "event")
}

test_a_product_without_a_model_is_fine if {
	count(known_then.deny) == 0 with input as {"request": {"action": "deploy"}, "product": {"id": "risk/limits", "domain": "risk"}}
}
