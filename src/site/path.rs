//! Where each thing lives on the site.
//!
//! All paths are relative to the root of the site and every link is relative to its page, so that the site works under
//! a sub-path, on a memory stick and from `file://`.

use sha2::{Digest, Sha256};

pub const OVERVIEW: &str = "index.html";
pub const LINEAGE: &str = "lineage/index.html";
pub const INCIDENTS: &str = "incidents/index.html";
pub const POLICIES: &str = "policies/index.html";
pub const CHANGES: &str = "changes/index.html";
pub const FEED: &str = "feed.atom";
pub const SUMMARY: &str = "api/v1/summary.json";
pub const PRODUCTS: &str = "api/v1/products.json";
pub const MANIFEST: &str = "manifest.json";
pub const ICON: &str = "favicon.svg";

/// Longest name that is used as it is; file systems end at 255 bytes.
const LONGEST_SLUG: usize = 80;

/// Returns the page of a domain.
#[must_use]
pub fn domain(name: &str) -> String {
    format!("d/{}/index.html", slug(name))
}

/// Returns the page of a product addressed `domain/product`.
#[must_use]
pub fn product(id: &str) -> String {
    format!("p/{}/index.html", product_slug(id))
}

/// Returns the badge of a product.
#[must_use]
pub fn badge(id: &str) -> String {
    format!("badge/{}.svg", product_slug(id))
}

/// Returns the page of an incident.
#[must_use]
pub fn incident(id: &str) -> String {
    format!("incidents/{}/index.html", slug(id))
}

fn product_slug(id: &str) -> String {
    let (domain, name) = id.split_once('/').unwrap_or(("mesh", id));
    format!("{}/{}", slug(domain), slug(name))
}

/// Returns what leads from `page` back to the root: `""`, `"../"`, `"../../"`...
#[must_use]
pub fn root_of(page: &str) -> String {
    "../".repeat(page.matches('/').count())
}

/// Returns a name fit for a path segment.
///
/// Plain names stay as they are, so that addresses can be guessed. Any other gets a hash of the original, so that two
/// names never share a page, not even on a file system that ignores case.
#[must_use]
pub fn slug(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !name.is_empty() && name.len() <= LONGEST_SLUG && name.chars().all(plain) && !is_reserved(name) {
        return name.to_owned();
    }
    let mut kept: String =
        name.to_lowercase().chars().map(|c| if plain(c) { c } else { '-' }).take(40).collect();
    kept = kept.trim_matches('-').to_owned();
    let hash = hex::encode(&Sha256::digest(name.as_bytes())[..6]);
    // The two hyphens keep hashed names apart from plain ones that end in twelve hexadecimal digits by chance; a plain
    // name that has them all the same would have to be a preimage.
    format!("{}--{hash}", if kept.is_empty() { "x" } else { &kept })
}

/// Names with a meaning to web servers or to some file systems.
fn is_reserved(name: &str) -> bool {
    matches!(name, "index" | "api" | "con" | "prn" | "aux" | "nul")
        || (name.len() == 4
            && (name.starts_with("com") || name.starts_with("lpt"))
            && name.ends_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stay_and_odd_names_never_collide() {
        assert_eq!(slug("daily-revenue"), "daily-revenue");
        let odd = ["A", "a b", "a_b/..", "..", ".", "", "index", "con", "com1", "ä", "a b ", "<script>"];
        let slugs: std::collections::BTreeSet<String> = odd.iter().map(|n| slug(n).to_lowercase()).collect();
        assert_eq!(slugs.len(), odd.len());
        for s in &slugs {
            assert!(s.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'), "{s}");
        }
        assert!(slug(&"n".repeat(300)).len() < 100);
    }

    #[test]
    fn root_counts_folders() {
        assert_eq!(root_of(OVERVIEW), "");
        assert_eq!(root_of(&product("a/b")), "../../../");
    }
}
