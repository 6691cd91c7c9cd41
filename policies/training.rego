# METADATA
# title: Models learn only from governed features, as they were known
# description: |
#   Every feature of a training set comes from a port of the mesh, which has a contract, an owner and a history. The set is
#   joined as of what was known at the label's time; otherwise the model learns from its own future.
# custom:
#   severity: high
#   remediation: Declare the feature's port as an input port of the product and state as_of in training_set.
package hydromesh.deploy.training

import data.hydromesh.lib

# Ports of the mesh that this product declares; an external port has no contract we can hold anybody to.
governed_ports contains port.from if {
	some port in input.product.inputPorts
	not port.external
}

deny contains {
	"rule": "training-provenance",
	"msg": sprintf("feature %s of %s does not come from a declared port of the mesh", [feature, input.product.id]),
	"path": feature,
} if {
	lib.publishes
	some feature in input.model.features
	not split(feature, "#")[0] in governed_ports
}

deny contains {
	"rule": "training-provenance",
	"msg": sprintf("the model of %s names no features", [input.product.id]),
	"path": "model.features",
} if {
	lib.publishes
	count(input.model.features) == 0
}

deny contains {
	"rule": "training-provenance",
	"msg": sprintf("the training set of %s does not say as of when its features are taken", [input.product.id]),
	"path": "model.training.as_of",
} if {
	lib.publishes
	is_object(input.model)
	not as_of_stated
}

warn contains {
	"rule": "training-provenance",
	"msg": sprintf("the training set of %s is taken as of event time alone, so corrections that came later leak into it", [input.product.id]),
	"path": "model.training.as_of",
} if {
	lib.publishes
	input.model.training.as_of == "event"
}

as_of_stated if input.model.training.as_of in {"event", "knowledge"}
