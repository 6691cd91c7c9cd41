//! The static status site: plain data in, files out, published atomically.
//!
//! [`build`] turns a [`SiteModel`] into the bytes of every file; it is pure, so two builds of one model are equal to the
//! byte. [`publish`] puts them where a web server finds them, whole or not at all. The pages need no script, link
//! relatively and carry a content security policy under which nothing of the mesh's text could run even if it escaped
//! the escaping.

mod escape;
pub mod from_ledger;
mod layout;
mod machine;
mod mesh;
pub mod model;
mod pages;
mod path;
mod picture;
mod publish;
pub mod publisher;
#[cfg(test)]
pub(crate) mod sample;
mod svg;
mod templates;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use model::SiteModel;
pub use publish::{Published, publish};

/// Why a site could not be built or published.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// Two things would share a page.
    #[error("two {what} are called `{name}`")]
    Duplicate { what: &'static str, name: String },
    /// A template failed: a bug of ours, as templates are compiled in.
    #[error("cannot render `{page}`")]
    Render {
        page: String,
        #[source]
        source: tera::Error,
    },
    #[error("cannot write `{page}` as json")]
    Json {
        page: String,
        #[source]
        source: serde_json::Error,
    },
    /// A file of the site would lie outside of the output folder.
    #[error("`{0}` is not a path inside the site")]
    Path(String),
    #[error("cannot {action} `{path}`")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Someone else publishes to the same folder at this moment.
    #[error("another process is publishing to `{0}`")]
    Busy(PathBuf),
}

/// Returns every file of the site by its path relative to the root.
///
/// Links between pages end in `index.html`, so the site also reads from `file://`.
///
/// # Errors
///
/// [`SiteError::Duplicate`] if two products, domains or incidents share an address; rendering errors are bugs.
pub fn build(model: &SiteModel) -> Result<BTreeMap<String, Vec<u8>>, SiteError> {
    let mesh = mesh::Mesh::new(model)?;
    let mut files = BTreeMap::new();
    let style = templates::style();
    files.insert(style.path.clone(), style.bytes);
    files.insert(path::ICON.to_owned(), machine::icon().into_bytes());
    pages::render_all(&mesh, &style.path, &mut files)?;
    machine::render_all(&mesh, &mut files)?;
    // Last, because it names all others.
    let manifest = machine::manifest(model, &files)?;
    files.insert(path::MANIFEST.to_owned(), manifest);
    Ok(files)
}
