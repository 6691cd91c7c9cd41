//! Reads OPA bundles: a gzipped tar whose names begin with a slash or not.

use std::{fs::File, io::Read, path::Path};

use datafusion::datasource::file_format::file_compression_type::FileCompressionType;

use super::problem::PolicyError;

/// A bundle may unpack to at most this many bytes; the central one has under 1 MiB.
const MAX_BUNDLE_BYTES: u64 = 64 << 20;
const BLOCK: usize = 512;

/// Returns path (without a leading slash) and bytes of every regular file.
///
/// # Errors
///
/// When the file cannot be read, is not a gzipped tar, or unpacks to more than 64 MiB.
pub(super) fn read(path: &Path) -> Result<Vec<(String, Vec<u8>)>, PolicyError> {
    let file = File::open(path).map_err(|source| PolicyError::Read { path: path.to_owned(), source })?;
    let broken = |reason: String| PolicyError::Bundle { path: path.to_owned(), reason };
    let mut bytes = Vec::new();
    FileCompressionType::GZIP
        .convert_read(file)
        .map_err(|error| broken(error.to_string()))?
        .take(MAX_BUNDLE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| broken(error.to_string()))?;
    if bytes.len() as u64 > MAX_BUNDLE_BYTES {
        return Err(broken(format!("it unpacks to more than {MAX_BUNDLE_BYTES} bytes")));
    }
    untar(&bytes).map_err(|reason| broken(reason.to_owned()))
}

/// Reads the POSIX ustar format: 512-byte headers with name at 0, octal size at 124, checksum at 148, type at 156 and
/// name prefix at 345, each followed by the content padded to whole blocks. OPA writes nothing else.
fn untar(mut rest: &[u8]) -> Result<Vec<(String, Vec<u8>)>, &'static str> {
    let mut entries = Vec::new();
    loop {
        let Some(header) = rest.get(..BLOCK) else {
            return Err("the archive ends in the middle of a header");
        };
        if header.iter().all(|byte| *byte == 0) {
            return Ok(entries);
        }
        // The checksum counts its own field as blanks.
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { u64::from(b' ') } else { u64::from(*byte) })
            .sum();
        if octal(&header[148..156]) != Some(sum) {
            return Err("a header does not match its checksum");
        }
        let size = octal(&header[124..136])
            .and_then(|size| usize::try_from(size).ok())
            .ok_or("a size is not a number")?;
        let padded = size.checked_next_multiple_of(BLOCK).ok_or("a size is not a number")?;
        let content = rest[BLOCK..].get(..size).ok_or("the archive ends in the middle of a file")?;
        match header[156] {
            b'0' | 0 => {
                let (prefix, name) = (text(&header[345..500])?, text(&header[..100])?);
                let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
                let path = path.trim_start_matches("./").trim_start_matches('/').to_owned();
                entries.push((path, content.to_vec()));
            }
            // A folder holds nothing we read; every other type (links, long names) is not written by OPA.
            b'5' => {}
            _ => return Err("it holds an entry that is neither a file nor a folder"),
        }
        rest = rest[BLOCK..].get(padded..).ok_or("the archive ends in the middle of a file")?;
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(digits.trim_matches(['\0', ' ']), 8).ok()
}

fn text(field: &[u8]) -> Result<String, &'static str> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8(field[..end].to_vec()).map_err(|_| "a name is not UTF-8 text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/policy-bundle/bundle.tar.gz")
    }

    #[test]
    fn reads_what_opa_wrote() {
        let entries = read(&fixture()).unwrap();
        let find = |name: &str| entries.iter().find(|(path, _)| path == name).map(|(_, bytes)| bytes);
        assert!(find("policy.wasm").unwrap().starts_with(b"\0asm"));
        assert!(serde_json::from_slice::<serde_json::Value>(find("data.json").unwrap()).is_ok());
    }

    #[test]
    fn refuses_what_is_not_a_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.tar.gz");
        let whole = std::fs::read(fixture()).unwrap();
        for bytes in [b"".as_slice(), b"not gzip", &whole[..whole.len() / 2]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(read(&path), Err(PolicyError::Bundle { .. })), "{} bytes", bytes.len());
        }
        let mut header = vec![0_u8; 1024];
        header[0] = b'x';
        assert!(untar(&header).is_err());
        assert!(untar(&[]).is_err());
    }
}
