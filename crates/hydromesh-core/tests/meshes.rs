//! Whole meshes: the example, the fixtures with one fault each, the documentation.

mod support;

use hydromesh_core::diag::Severity;
use hydromesh_core::model::load;

#[test]
fn the_example_mesh_has_no_error() {
    let root = std::env::var_os("HYDROMESH_EXAMPLE")
        .map_or_else(|| support::root().join("mesh-repo-example"), Into::into);
    if !root.join("mesh.yaml").is_file() {
        println!("skipped: there is no mesh at {}", root.display());
        return;
    }
    let result = load(&support::folder(&root));
    let told: Vec<String> =
        result.findings.iter().filter(|it| it.severity != Severity::Note).map(ToString::to_string).collect();
    assert_eq!(told, Vec::<String>::new());
    assert!(result.broken.is_empty());
    assert!(result.mesh.products.len() >= 9, "{}", result.mesh.products.len());
}
