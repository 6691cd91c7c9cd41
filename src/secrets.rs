//! Secrets: settings in git name them as `${secret:NAME}`; their values come from a folder of files or from the process's
//! environment when they are used, and are neither stored nor printed.

use std::path::{Path, PathBuf};

/// The variable that names the folder of files.
pub const FOLDER: &str = "HYDROMESH_SECRETS";

const OPEN: &str = "${secret:";

/// Why a setting cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its reference is not closed, or names nothing that could be a file or a variable.
    #[error("`{0}` is no reference to a secret; expected ${{secret:NAME}} with letters, digits, `_` and `-`")]
    Malformed(String),
    /// Nobody gives it a value.
    #[error("the secret {name} has no value: {}", where_to_put(.name, .folder.as_deref()))]
    Missing {
        /// Its name.
        name: String,
        /// The folder that was looked in.
        folder: Option<PathBuf>,
    },
    /// Its file cannot be read.
    #[error("the secret {name} cannot be read from {}", path.display())]
    Unreadable {
        /// Its name.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn where_to_put(name: &str, folder: Option<&Path>) -> String {
    match folder {
        Some(folder) => {
            format!("put it into the file {}, or set the variable {name}", folder.join(name).display())
        }
        None => {
            format!("set the variable {name}, or name a folder with a file {name} in the variable {FOLDER}")
        }
    }
}

/// Returns a setting with the values of the secrets that it names.
///
/// # Errors
/// [`SecretError`], which tells no value.
pub fn resolve(setting: &str) -> Result<String, SecretError> {
    let folder = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    resolve_with(setting, folder.as_deref(), |name| std::env::var(name).ok())
}

fn resolve_with(
    setting: &str,
    folder: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, SecretError> {
    let mut text = String::with_capacity(setting.len());
    let mut rest = setting;
    while let Some(at) = rest.find(OPEN) {
        text.push_str(&rest[..at]);
        let after = &rest[at + OPEN.len()..];
        let Some((name, then)) = after.split_once('}') else {
            return Err(SecretError::Malformed(rest[at..].to_owned()));
        };
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
            return Err(SecretError::Malformed(format!("{OPEN}{name}}}")));
        }
        text.push_str(&value(name, folder, &variable)?);
        rest = then;
    }
    text.push_str(rest);
    Ok(text)
}

fn value(
    name: &str,
    folder: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, SecretError> {
    if let Some(path) = folder.map(|folder| folder.join(name)) {
        match std::fs::read_to_string(&path) {
            // Editors end files with a line break, secrets do not.
            Ok(value) => return Ok(value.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(SecretError::Unreadable { name: name.to_owned(), path, source }),
        }
    }
    let missing = || SecretError::Missing { name: name.to_owned(), folder: folder.map(Path::to_owned) };
    variable(name).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_before_a_variable_and_what_is_missing_is_told_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("STATE_URL"), "postgres://a:b@c/d\n").expect("a file");
        let variable =
            |name: &str| (name == "OTHER" || name == "STATE_URL").then(|| "from a variable".to_owned());
        let resolved = |setting: &str| resolve_with(setting, Some(folder.path()), variable);
        assert_eq!(resolved("${secret:STATE_URL}").expect("a file"), "postgres://a:b@c/d");
        assert_eq!(
            resolved("<${secret:OTHER}> ${secret:OTHER}").expect("twice"),
            "<from a variable> from a variable"
        );
        assert_eq!(resolved("nothing").expect("nothing to do"), "nothing");
        let says = |setting: &str| resolved(setting).expect_err("refused").to_string();
        assert!(says("${secret:NOBODY}").contains("the secret NOBODY has no value: put it into the file"));
        assert!(says("${secret:../../etc/passwd}").contains("is no reference to a secret"));
        assert!(says("${secret:STATE_URL").contains("is no reference to a secret"));
        let alone =
            resolve_with("${secret:STATE_URL}", None, |_| None).expect_err("nobody has it").to_string();
        assert!(alone.contains("set the variable STATE_URL") && alone.contains(FOLDER), "{alone}");
    }
}
