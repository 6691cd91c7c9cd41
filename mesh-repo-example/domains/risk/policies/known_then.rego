# METADATA
# title: Risk models learn only what was known then
# description: |
#   The central rules warn when a training set is joined on event time alone. A churn score that saw tomorrow's corrections
#   looks better than it is, so this domain forbids it.
# custom:
#   severity: high
#   remediation: State the knowledge time in training_set.as_of of pipeline.yaml.
package domain.risk.known_then

deny contains {
	"rule": "known-then",
	"msg": sprintf("the training set of %s does not say as of which knowledge its features are taken", [input.product.id]),
	"path": "model.training.as_of",
} if {
	input.product.domain == "risk"
	input.request.action in {"deploy", "promote"}
	is_object(input.model)
	object.get(input.model, ["training", "as_of"], null) != "knowledge"
}
