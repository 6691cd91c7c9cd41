//! The central rules as they were when the binary was built.

macro_rules! policies {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../policies/", $name)))),*]
    };
}

/// File name and text of every rule, test and data file in `policies/`. A test compares the list with the folder.
pub(super) const FILES: &[(&str, &str)] = policies![
    "breaking_change.rego",
    "breaking_change_test.rego",
    "contract_version.rego",
    "contract_version_test.rego",
    "data.json",
    "fixture_test.rego",
    "lib.rego",
    "lib_test.rego",
    "lifecycle.rego",
    "lifecycle_test.rego",
    "oncall.rego",
    "oncall_test.rego",
    "owners.rego",
    "owners_test.rego",
    "partition_bound.rego",
    "partition_bound_test.rego",
    "pii.rego",
    "pii_test.rego",
    "quality.rego",
    "quality_test.rego",
    "search.rego",
    "search_test.rego",
    "slo.rego",
    "slo_test.rego",
    "topic_naming.rego",
    "topic_naming_test.rego",
    "training.rego",
    "training_test.rego",
    "waivers.rego",
    "waivers_test.rego",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn lists_every_file_of_the_folder() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");
        let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".rego") || name == "data.json")
            .collect();
        let listed: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(listed, on_disk);
    }
}
