//! Where the site shows what a message is about.

use hydromesh_core::ids::ProductId;
use sha2::{Digest, Sha256};

/// Returns the page of an episode, relative to the root of the site.
///
/// Episode ids hold characters that no path should; the site then shortens and hashes them. A test compares this with
/// the pages of a built site.
#[must_use]
pub fn incident_page(episode: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let kept: String =
        episode.to_lowercase().chars().map(|c| if plain(c) { c } else { '-' }).take(40).collect();
    let kept = kept.trim_matches('-');
    let hash = hex::encode(&Sha256::digest(episode.as_bytes())[..6]);
    format!("incidents/{}--{hash}/index.html", if kept.is_empty() { "x" } else { kept })
}

/// Returns the page of a product, relative to the root of the site.
pub(super) fn product_page(product: &ProductId) -> String {
    format!("p/{product}/index.html")
}
