# METADATA
# title: One plan computes a bounded number of partitions
# description: A typing error in a start date must not recompute ten years of data.
# custom:
#   severity: high
#   remediation: Narrow the range, split the backfill, or ask for a waiver of partition-bound for this product.
package hydromesh.deploy.partition_bound

# A missing limit bounds the plan to nothing.
within_bound if input.plan.partitions <= data.hydromesh.limits.partitions_per_plan

deny contains {
	"rule": "partition-bound",
	"msg": sprintf("the plan of %s computes %d partitions, more than one plan may", [input.product.id, input.plan.partitions]),
	"path": "plan.partitions",
} if {
	input.plan.partitions > 0
	not within_bound
}
