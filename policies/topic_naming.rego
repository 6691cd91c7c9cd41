# METADATA
# title: Topics have names that every broker and table accepts
# description: A topic's name ends up in brokers, tables, metrics and addresses, and cannot be changed without moving its readers.
# custom:
#   severity: low
#   remediation: Use lower-case letters, digits and single hyphens or underscores, starting with a letter.
package hydromesh.deploy.topic_naming

import data.hydromesh.lib

topics contains port.name if {
	some port in input.product.outputPorts
	port.format in data.hydromesh.limits.topic_formats
}

# A missing limit accepts no name.
well_named(name) if {
	regex.match(data.hydromesh.limits.topic_name_pattern, name)
	count(name) <= data.hydromesh.limits.topic_name_max_length
}

deny contains {
	"rule": "topic-naming",
	"msg": sprintf("topic %s of %s has a name that not every broker accepts", [name, input.product.id]),
	"path": sprintf("%s.%s", [input.product.id, name]),
} if {
	lib.publishes
	some name in topics
	not well_named(name)
}
