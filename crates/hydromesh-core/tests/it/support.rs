//! Folders of the repository as the maps that core reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hydromesh_core::model::Loaded;

/// Returns the root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Reads a folder; paths are relative to it, with `/`.
pub fn folder(root: &Path) -> BTreeMap<String, Loaded> {
    let mut files = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).expect("a file");
            let oid = format!("{:x}", bytes.len());
            let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned());
            let name: Vec<_> =
                path.strip_prefix(root).expect("below").iter().map(|it| it.to_string_lossy()).collect();
            files.insert(name.join("/"), Loaded { text, oid });
        }
    }
    files
}

/// Returns a folder of files that others wrote, or says why it is skipped.
pub fn shared(part: &str) -> Option<PathBuf> {
    let base = std::env::var_os("HYDROMESH_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let path = base.join(part);
    if path.is_dir() {
        return Some(path);
    }
    println!(
        "skipped: {} is not there; set HYDROMESH_SHARED to the folder of shared test data",
        path.display()
    );
    None
}
