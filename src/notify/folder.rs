//! Mails as files: whole or not there, and the same message always under the same name.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use super::NotifyError;

/// Writes one message and returns its path relative to the state folder.
pub(super) fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<String, NotifyError> {
    let fail = |action, path: &Path| {
        let path = path.to_owned();
        move |source| NotifyError::Io { action, path, source }
    };
    crate::disk::create_folders(folder).map_err(fail("create", folder))?;
    // A dot keeps it out of listings; a crash leaves at most this file, which the next attempt overwrites.
    let partial = folder.join(format!(".{name}.partial"));
    let target = folder.join(name);
    let mut file = File::create(&partial).map_err(fail("create", &partial))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|source| {
        // On a full disk it would keep what little room there is.
        let _ = fs::remove_file(&partial);
        fail("write", &partial)(source)
    })?;
    fs::rename(&partial, &target).map_err(fail("rename", &partial))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail("sync", folder))?;
    Ok(format!("mail/{name}"))
}
