# METADATA
# title: An input that every central rule lets pass
# description: Tests change one thing at a time; objects are merged, arrays are replaced.
package hydromesh.fixture_test

good := {
	"apiVersion": "hydromesh/v1",
	"kind": "DeployGateInput",
	"request": {"id": "r1", "action": "deploy", "environment": "dev", "time": "2026-08-10T12:00:00Z"},
	"git": {"commit": "c0ffee", "base": null, "ref": "refs/heads/main"},
	"product": {
		"id": "customer/c360",
		"domain": "customer",
		"name": "c360",
		"version": "1.0.0",
		"status": "active",
		"tier": 1,
		"owners": ["ada@retail.example"],
		"oncall": "customer-oncall",
		"runbook": "https://runbooks.retail.example/c360",
		"kinds": ["batch"],
		"inputPorts": [{"name": "customers", "from": "customer/customers.customers", "external": false}],
		"outputPorts": [{"name": "profile", "format": "delta"}],
	},
	"contracts": [contract],
	"changes": [],
	"plan": {"kind": "create", "partitions": 90, "reason": "first deploy"},
	"lineage": {
		"upstream": ["customer/customers"],
		"downstream": [],
		"columnEdges": [edge],
		"labels": {"customer/customers.customers#email": "pii"},
	},
	"model": null,
	"waivers": [],
	"policy": {"digest": ""},
}

contract := {
	"port": "customer/c360.profile",
	"id": "c360-profile",
	"version": "1.2.0",
	"oldVersion": null,
	"status": "active",
	"columns": [
		{"name": "id", "logicalType": "string", "required": true, "classification": "internal"},
		{"name": "email", "logicalType": "string", "required": false, "classification": "pii"},
	],
	"quality": {"rules": 3, "errorRules": 2},
	"sla": [{"property": "latency", "value": 26, "unit": "h"}],
}

edge := {
	"from": "customer/customers.customers#email",
	"to": "customer/c360.profile#email",
	"type": "DIRECT",
	"masking": false,
}

changed(difference) := object.union(good, difference)

contracted(difference) := object.union(good, {"contracts": [object.union(contract, difference)]})

acting(action, difference) := object.union(changed(difference), {"request": {"action": action}})
