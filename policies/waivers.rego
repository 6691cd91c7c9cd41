# METADATA
# title: Waivers end soon
# description: A waiver is a loan. One that runs for years is a rule that was switched off.
# custom:
#   severity: low
#   remediation: Bring the expiry of the waiver closer and renew it when it is due.
package hydromesh.deploy.waivers

nanoseconds_per_day := 86400000000000

# A missing limit lets no waiver run.
soon(waiver) if {
	left := time.parse_rfc3339_ns(waiver.expires) - time.parse_rfc3339_ns(input.request.time)
	left <= data.hydromesh.limits.waiver_days * nanoseconds_per_day
}

warn contains {
	"rule": "waiver-lifetime",
	"msg": sprintf("waiver %s of rule %s runs longer than a waiver should", [waiver.id, waiver.rule]),
	"path": waiver.id,
} if {
	some waiver in input.waivers
	not soon(waiver)
}
